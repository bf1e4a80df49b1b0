"""``freshkv eval``, and the command line of lm-eval."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freshkv.cli import app
from freshkv.models.tasks import tasks
from tests.evaluation.local_tasks import CHOICE, GENERATE, answers, write_task

ROOT = Path(__file__).parents[2]
LAUNCHER = ("-m", "accelerate.commands.launch", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend=no")


@pytest.fixture
def folder(tmp_path):
    """Local tasks."""
    made = tmp_path / "tasks"
    made.mkdir()
    write_task(made, "first", GENERATE, [{"prompt": f"1 2 {n}", "answer": "3"} for n in range(5)], max_gen_toks=8)
    write_task(made, "second", GENERATE, [{"prompt": f"4 {n}", "answer": "3"} for n in range(3)], max_gen_toks=4)
    write_task(made, "choices", CHOICE, [{"prompt": "1 2", "choices": ["3", "4 5"], "right": 0}])
    return made


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")

    def run(*arguments):
        return CliRunner().invoke(app, ["eval", *map(str, arguments)])

    return run


@pytest.fixture
def launch(tmp_path):
    """A function that runs a module in processes of its own; the first argument is how many."""

    def run(count, *arguments):
        # the flag means processes of torch.distributed, which are on the CPU where there is no GPU
        several = [*LAUNCHER, "--num_processes", str(count), "--multi_gpu"] if count > 1 else []
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *several, "-m", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def test_scores_and_speed_are_shown_and_written(invoke, folder, checkpoint, tmp_path):
    arguments = ("--model", checkpoint, "--task", "first", "--task", "second", "--include-path", folder)
    result = invoke(*arguments, "--policy", "dual", "--block-length", 4, "--limit", 3, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "exact_match" in result.stdout
    assert "forward" in result.stdout
    written = results_in(tmp_path / "out")
    assert list(written["tasks"]) == ["first", "second"]
    first = written["tasks"]["first"]
    assert (first["settings"]["policy"], first["settings"]["block_length"], first["settings"]["preset"]) == (
        "dual",
        4,
        None,
    )
    assert first["problems"] == {"first": 3}
    assert first["generation"]["forwards"] == 3 * 8
    assert written["tasks"]["second"]["generation"]["forwards"] == 3 * 4
    assert len((tmp_path / "out" / "samples-first.jsonl").read_text().splitlines()) == 3


def test_a_batch_that_is_planned_is_said_and_shared(invoke, folder, checkpoint, tmp_path):
    arguments = ("--model", checkpoint, "--task", "first", "--include-path", folder, "--output", tmp_path / "out")
    result = invoke(*arguments, "--batch-size", "auto")
    assert result.exit_code == 0, result.output
    assert "5 sequences are decoded together: each takes " in result.stderr
    generation = results_in(tmp_path / "out")["tasks"]["first"]["generation"]
    assert (generation["forwards"], round(generation["passes"])) == (5 * 8, 8)
    again = invoke(*arguments, "--batch-size", "auto")
    assert "5 of 5 answers are in" in again.stderr


def test_the_same_command_goes_on_where_it_was(invoke, folder, checkpoint, tmp_path):
    arguments = ("--model", checkpoint, "--task", "first", "--include-path", folder)
    (first, again) = (invoke(*arguments) for _ in range(2))
    assert "5 of 5 answers are in" not in first.stderr
    assert "5 of 5 answers are in" in again.stderr
    (out,) = (tmp_path / "results").iterdir()
    assert results_in(out)["tasks"]["first"]["generation"]["answers"] == 5
    assert invoke(*arguments, "--policy", "dual").exit_code == 0
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_results_of_another_evaluation_are_not_replaced(invoke, folder, checkpoint, tmp_path, monkeypatch):
    import freshkv.evaluation.evaluation as module

    arguments = ("--model", checkpoint, "--include-path", folder, "--output", tmp_path / "out")
    assert invoke(*arguments, "--task", "second").exit_code == 0
    before = (tmp_path / "out" / "results.json").read_text()
    assert invoke(*arguments, "--task", "first").exit_code == 0  # another task joins
    assert list(results_in(tmp_path / "out")["tasks"]) == ["second", "first"]
    monkeypatch.setattr(module, "load_subject", lambda *_: pytest.fail("loads a model"))
    other = invoke(*arguments, "--task", "second", "--policy", "dual")
    assert other.exit_code == 1
    assert "policy of second differ" in other.stderr
    limited = invoke(*arguments, "--task", "second", "--limit", 1)
    assert "limit differ" in limited.stderr
    kept = results_in(tmp_path / "out")["tasks"]["second"]
    assert kept == json.loads(before)["tasks"]["second"]


def test_choices_have_scores_and_no_speed(invoke, folder, checkpoint):
    result = invoke("--model", checkpoint, "--task", "choices", "--include-path", folder, "--mc-samples", 2)
    assert result.exit_code == 0, result.output
    assert "acc" in result.stdout
    assert "forward" not in result.stdout


def test_the_list_shows_presets_and_their_sources(invoke):
    shown = invoke("--list").stdout
    for text in ("d2cache-paper", "fast-dllm-paper", "arXiv:2509.23094", "minerva_math500", "llada-instruct"):
        assert text in shown


def test_a_plan_is_made_without_a_model(invoke):
    result = invoke(
        "--preset",
        "d2cache-paper",
        "--task",
        "gsm8k",
        "--task",
        "mbpp",
        "--policy",
        "d2cache",
        "--plan",
        "--devices",
        8,
        "--price",
        2,
    )
    assert result.exit_code == 0, result.output
    assert "8.02 billion weights" in result.stdout
    assert "RTX 3090" in result.stdout
    assert "1.03" in result.stdout  # 165 problems a device, 256 steps of 1 / (2.77 * 4.1) s


def test_a_plan_takes_a_measured_step(invoke):
    result = invoke(
        "--task", "mine", "--gen-length", 8, "--problems", 10, "--plan", "--step-ms", 3600, "--model", "tiny-llada"
    )
    assert result.exit_code == 0, result.output
    assert "0.08" in result.stdout  # 80 steps of 3.6 s are 288 s


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--task is missing"),
        (("--task", "first", "--preset", "d2cash"), "Unknown preset 'd2cash'. Did you mean 'd2cache-paper'?"),
        (("--task", "mbpp", "--preset", "d2cache-paper"), "these tasks execute code that the model writes"),
        (("--task", "gsm8k", "--preset", "d2cache-paper", "--model", "checkpoints/mine"), "--variant"),
        (("--task", "gsm8k", "--preset", "d2cache-paper", "--block-length", "7"), "does not divide the 256 tokens"),
        (("--task", "first", "--policy", "dul"), "Unknown policy 'dul'"),
        (("--task", "frist", "--include-path", "tasks"), "'frist' is no task"),
        (("--task", "first", "--include-path", "nowhere"), "is no folder"),
        (("--task", "mine", "--plan", "--gen-length", "8", "--problems", "1"), "--step-ms"),
        (("--task", "gsm8k", "--preset", "d2cache-paper", "--plan", "--tensor-parallel"), "are of one device"),
        (
            ("--task", "first", "--batch-size", "many"),
            "batch_size is 'many'; expected a whole number of at least 1, or",
        ),
        (
            ("--task", "gsm8k", "--preset", "d2cache-paper", "--plan", "--batch-size", "auto"),
            "give its size as a number",
        ),
    ],
)
def test_mistakes_are_said_before_any_work(invoke, folder, arguments, message, monkeypatch):
    import freshkv.evaluation.session as module
    import freshkv.evaluation.tasks as tasks_module

    monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("loads a model"))
    own = tasks_module.TaskManager
    monkeypatch.setattr(tasks_module, "TaskManager", lambda **options: own(**{**options, "include_defaults": False}))
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_a_task_of_ones_own_that_runs_code_needs_permission_too(invoke, folder, checkpoint):
    path = folder / "first.yaml"
    path.write_text(path.read_text() + "unsafe_code: true\n")
    arguments = ("--model", checkpoint, "--task", "first", "--include-path", folder, "--limit", 1)
    refused = invoke(*arguments)
    assert refused.exit_code == 2
    assert "--confirm-run-unsafe-code" in refused.stderr
    assert invoke(*arguments, "--confirm-run-unsafe-code").exit_code == 0
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_data_that_is_missing_is_said_before_a_model_is_loaded(invoke, folder, monkeypatch):
    import freshkv.evaluation.session as module

    monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("loads a model"))
    (folder / "first.jsonl").unlink()
    result = invoke("--task", "first", "--include-path", folder)
    assert result.exit_code == 2
    assert "lm-eval cannot read first" in result.stderr


def test_without_lm_eval_it_says_what_to_install(invoke, monkeypatch):
    import freshkv.evaluation.requirements as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = invoke("--task", "first")
    assert result.exit_code == 2
    assert "pip install 'freshkv[eval]'" in result.stderr


def test_two_processes_give_what_one_gives(launch, invoke, folder, checkpoint, tmp_path):
    """Five problems on two processes: lm-eval repeats one, which must not count."""
    arguments = ("--model", checkpoint, "--task", "first", "--include-path", folder, "--policy", "dual")
    launch(2, "freshkv", "eval", *arguments, "--output", tmp_path / "two")
    assert invoke(*arguments, "--output", tmp_path / "one").exit_code == 0
    two, one = (results_in(tmp_path / name)["tasks"]["first"] for name in ("two", "one"))
    assert (two["model"]["processes"], one["model"]["processes"]) == (2, 1)
    assert two["scores"] == one["scores"]
    assert two["problems"] == one["problems"] == {"first": 5}
    measured = ("seconds", "tokens_per_second", "response_tokens_per_second", "seconds_per_forward")
    for counted in set(one["generation"]) - set(measured):
        assert two["generation"][counted] == pytest.approx(one["generation"][counted]), counted

    def texts(name):
        lines = (tmp_path / name / "samples-first.jsonl").read_text().splitlines()
        return {sample["doc_id"]: sample["resps"][0][0] for sample in map(json.loads, lines)}

    assert texts("two") == texts("one")
    assert len(list((tmp_path / "two" / "responses").iterdir())) == 2


def test_lm_evals_command_line_runs_our_model(launch, tmp_path):
    """As it is documented: a bundled model, a spec with several fields, a local task."""
    pytest.importorskip("_freshkv_lm_eval", reason="needs integrations/lm-eval, which make test installs")
    problems = tasks()["sums"]().generate(2, 0)
    write_task(tmp_path, "local-sums", GENERATE, answers(problems), max_gen_toks=64)
    model = "pretrained=tiny-llada,policy=d2cache:current_k=16+sigma=5,block_length=16"
    launch(
        1, "lm_eval", "--model", "freshkv", "--model_args", model, "--tasks", "local-sums", "--include_path",
        tmp_path, "--batch_size", 2, "--output_path", tmp_path / "out",
    )  # fmt: skip
    (path,) = (tmp_path / "out").rglob("results_*.json")
    written = json.loads(path.read_text())
    assert written["results"]["local-sums"]["exact_match,none"] == 1.0
    assert written["config"]["freshkv"]["options"]["policy"] == "d2cache:current_k=16,sigma=5"
    assert written["config"]["freshkv"]["generation"]["answers"] == 2
