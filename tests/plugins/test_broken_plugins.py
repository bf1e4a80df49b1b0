"""A plugin that does not work is one line; everything else works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freshkv.cli import app
from freshkv.core.plugins import Plugins, load_plugins
from freshkv.core.registry import POLICIES, collect
from freshkv.models.extensions import KINDS
from tests.plugins.broken import BROKEN, GOOD, HALF, Broken
from tests.plugins.install import Outcome, Package, run_freshkv, run_python

each_broken = pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.kind)


def copy_installed(package: Package, site: Path, folder: Path) -> None:
    """The files that pip installed for one distribution."""
    stem = package.name.replace("-", "_")
    for path in (site / f"{package.module}.py", site / f"{stem}-{package.version}.dist-info"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)


def lines_about(package: Package, text: str) -> list[str]:
    return [line for line in text.splitlines() if f"of {package.title} was skipped" in line]


def problems_of(plugins: Plugins) -> list[str]:
    parts = [problem for kind in KINDS for problem in collect(kind, plugins).problems]
    return [str(problem) for problem in (*plugins.problems, *parts)]


@each_broken
def test_a_broken_plugin_is_one_line_beside_one_that_works(
    broken: Broken, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in (GOOD, broken.package):
        copy_installed(package, site, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins()

    (line,) = lines_about(broken.package, "\n".join(problems_of(plugins)))
    assert f"plugin '{broken.package.plugin}' of {broken.package.name} 1.2" in line
    assert "To mend it, " in line
    for words in broken.words:
        assert words in line
    assert line.startswith("plugin ") == broken.whole

    known = collect(POLICIES, plugins).classes
    assert {"none", "prefix", "dual", "dllm", "d2cache", "good"} <= known.keys()
    assert broken.kind not in known
    assert known["dual"].__module__ == "freshkv.policies.dual"


def test_what_works_of_a_plugin_stays(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_installed(HALF, site, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins()
    assert collect(POLICIES, plugins).classes["half"].__module__ == HALF.module
    (line,) = lines_about(HALF, "\n".join(problems_of(plugins)))
    assert line.startswith("Second of plugin 'half'")


def test_damaged_entry_points_of_one_distribution_do_not_matter_to_others(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = BROKEN[0].package
    for package in (GOOD, damaged):
        copy_installed(package, site, tmp_path)
    (info,) = tmp_path.glob("freshkv_missing_module*.dist-info")
    (info / "entry_points.txt").write_text("[freshkv]\nno equals sign\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins()
    (line,) = lines_about(damaged, "\n".join(problems_of(plugins)))
    assert "its entry points cannot be read" in line
    assert "good" in collect(POLICIES, plugins).classes


COMPARE = "compare --task weave --problems 1 --gen-length 16 --policy good --policy dual"
STRICT = "--strict-plugins list"


@pytest.fixture(scope="session")
def outcomes(site: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What commands do where all of them are installed."""
    return run_freshkv("list", COMPARE, STRICT, "doctor", site=site, folder=tmp_path_factory.mktemp("run"))


def test_all_at_once_are_a_line_each_and_the_lists_are_whole(outcomes: dict[str, Outcome]) -> None:
    done = outcomes["list"]
    assert done.code == 0
    for package in (*(broken.package for broken in BROKEN), HALF):
        (line,) = lines_about(package, done.stderr)
        assert line.startswith("Warning: ")
    assert len(done.stderr.splitlines()) == len(BROKEN) + 1
    for name, origin in {"d2cache": "built-in", "good": GOOD.title, "half": HALF.title, "words": GOOD.title}.items():
        (line,) = (line for line in done.stdout.splitlines() if line.startswith(f" {name} "))
        assert origin in line


def test_a_comparison_goes_on_without_them(outcomes: dict[str, Outcome]) -> None:
    done = outcomes[COMPARE]
    assert done.code == 0
    names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ") and line.strip()]
    assert {"none", "good", "dual"} <= set(names)


def test_strict_plugins_names_them_all_and_stops(outcomes: dict[str, Outcome]) -> None:
    done = outcomes[STRICT]
    assert (done.code, done.stdout) == (1, "")
    for package in (*(broken.package for broken in BROKEN), HALF):
        assert len(lines_about(package, done.stderr)) == 1
    assert "Warning" not in done.stderr


def test_doctor_explains_each_with_versions_and_places(outcomes: dict[str, Outcome], site: Path) -> None:
    done = outcomes["doctor"]
    assert done.code == 1
    assert "Warning" not in done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert len(problems) == len(BROKEN) + 1
    for broken in BROKEN:
        assert len(lines_about(broken.package, done.stdout)) == 1
    assert "  entry point   missing-module = freshkv_missing_module\n" in done.stdout
    assert f"  installed in  {site}" in done.stdout
    assert "  asks for      freshkv>=0.1\n" in done.stdout
    assert f"  raised at     {site / 'freshkv_raising_import.py'}, line 1\n" in done.stdout
    assert "plugin good   freshkv-good 1.2: policy good, task words\n" in done.stdout
    assert "environment   " in done.stdout


LIBRARY = """
import warnings
import freshkv
from freshkv.core.errors import PluginError
from freshkv.core.registry import PluginWarning, policies

for _ in range(2):
    try:
        policies(strict=True)
    except PluginError as error:
        print(str(error).count("was skipped"), "odd-name" in str(error), "task-facts" in str(error))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    first, second, _ = freshkv.policies(), freshkv.policies(), freshkv.decoders()
texts = [str(warning.message) for warning in caught if warning.category is PluginWarning]
print(len(texts) == len(set(texts)) > 10, "good" in first, first is second, caught[0].filename)
"""


def test_in_python_each_is_warned_of_once_and_strict_raises_every_time(site: Path, tmp_path: Path) -> None:
    done = run_python(["-c", LIBRARY], site, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second, warned = done.stdout.splitlines()
    assert first == second
    assert first.endswith(" True False")  # a policy's problem is told, a task's is of no concern here
    assert warned.startswith("True True True ")


HELP = """
import sys
from typer.testing import CliRunner
from freshkv.cli import app
assert "compare" in CliRunner().invoke(app, ["--help"]).output
assert "--policy" in CliRunner().invoke(app, ["compare", "--help"]).output
print([name for name in sys.modules if name.startswith("freshkv_") or name in ("torch", "pluggy")])
"""


def test_help_imports_no_plugin(site: Path, tmp_path: Path) -> None:
    done = run_python(["-W", "error", "-c", HELP], site, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_strict_plugins_goes_on_where_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("freshkv.models.extensions.plugin_problems", lambda: ())
    result = CliRunner().invoke(app, ["--strict-plugins", "list", "tasks"])
    assert result.exit_code == 0
    assert "weave" in result.output
