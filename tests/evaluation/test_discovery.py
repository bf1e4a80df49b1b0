"""How lm-eval finds freshkv."""

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = spec_from_file_location("_freshkv_lm_eval", ROOT / "integrations" / "lm-eval" / "_freshkv_lm_eval.py")
discovery = module_from_spec(SPEC)
SPEC.loader.exec_module(discovery)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_class_is_where_the_entry_point_and_the_watcher_say():
    (point,) = [point for point in entry_points(group="lm_eval.models") if point.name == discovery.NAME]
    assert point.value == discovery.TARGET
    assert point.load().__name__ == "FreshkvLM"


def test_importing_the_list_of_models_registers_ours_and_loads_nothing():
    code = (
        "import sys; sys.path.insert(0, 'integrations/lm-eval'); import _freshkv_lm_eval as discovery;"
        "discovery.watch(); discovery.watch();"
        "print(sum(type(finder).__name__ == 'Watcher' for finder in sys.meta_path), 'lm_eval' in sys.modules);"
        "import lm_eval.models; from lm_eval.api.registry import model_registry;"
        "print('freshkv' in model_registry, 'hf' in model_registry, 'torch' in sys.modules,"
        " sum(type(finder).__name__ == 'Watcher' for finder in sys.meta_path))"
    )
    assert run(code) == ["1", "False", "True", "True", "False", "0"]


def test_watching_when_the_list_is_there_already_registers_at_once():
    code = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'Watcher'];"
        "import lm_eval.models; from lm_eval.api.registry import model_registry;"
        "sys.path.insert(0, 'integrations/lm-eval'); import _freshkv_lm_eval as discovery;"
        "discovery.watch(); print('freshkv' in model_registry)"
    )
    assert run(code) == ["True"]


def test_a_release_of_another_kind_is_left_alone():
    code = (
        "import sys, types; sys.modules['lm_eval'] = types.ModuleType('lm_eval');"
        "sys.path.insert(0, 'integrations/lm-eval'); import _freshkv_lm_eval as discovery;"
        "discovery.register(); print('quiet')"
    )
    assert run(code) == ["quiet"]


def test_what_runs_at_every_start_of_python_imports_nothing():
    code = (
        "import sys; sys.modules.pop('_freshkv_lm_eval', None); sys.path.insert(0, 'integrations/lm-eval');"
        "before = set(sys.modules); import _freshkv_lm_eval as discovery;"
        "discovery.watch(); print(*sorted(set(sys.modules) - before))"
    )
    assert set(run(code)) <= {"__future__", "_freshkv_lm_eval"}


def test_the_startup_file_calls_the_module_beside_it():
    text = (ROOT / "integrations/lm-eval/freshkv_lm_eval.pth").read_text()
    assert text == "import _freshkv_lm_eval; _freshkv_lm_eval.watch()\n"


def test_nothing_of_lm_eval_is_imported_with_the_command_line():
    assert run("import sys, freshkv.cli, freshkv.evaluation; print('lm_eval' in sys.modules)") == ["False"]


def test_all_but_the_tasks_and_the_model_work_without_lm_eval():
    code = (
        "import sys; sys.modules |= dict.fromkeys(('lm_eval', 'accelerate'));"
        "from freshkv.evaluation.preset import presets; from freshkv.evaluation.plan import plan_evaluation;"
        "import freshkv.evaluation.session, freshkv.evaluation.evaluation; print(len(presets()) > 0)"
    )
    assert run(code) == ["True"]


def test_the_command_line_of_lm_eval_is_ours_too_and_knows_the_model(monkeypatch):
    import lm_eval.__main__ as command_line
    from lm_eval.api.registry import model_registry

    from freshkv.evaluation.__main__ import main

    called = []
    monkeypatch.setattr(command_line, "cli_evaluate", lambda: called.append("freshkv" in model_registry))
    main()
    assert called == [True]
