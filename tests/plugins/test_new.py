"""``freshkv new`` writes a package that installs, passes its tests, and takes part in a comparison."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from freshkv.cli import app
from freshkv.cli.new import Kind, class_name, module_name
from tests.plugins.install import Outcome, pip_install, run_freshkv, run_python

NAMES = {Kind.POLICY: "my-cache", Kind.DECODER: "Near.best_2"}
COMPARE = "compare --task weave --problems 1 --gen-length 16 --policy my-cache:refresh_every=4 --decoder Near.best_2"
every_kind = pytest.mark.parametrize("kind", list(Kind))


def new(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["new", *map(str, arguments)])


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    folder = tmp_path_factory.mktemp("new")
    paths = {kind: folder / kind for kind in Kind}
    for kind, path in paths.items():
        result = new(kind, NAMES[kind], "--folder", path)
        assert result.exit_code == 0, result.output
    return paths


@pytest.fixture(scope="session")
def installed(packages: dict[Kind, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("new-site")
    pip_install(site, packages.values())
    return site


@pytest.fixture(scope="session")
def outcomes(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("new-run")
    return run_freshkv("list policies", "list decoders", COMPARE, "doctor", site=installed, folder=folder)


def test_their_own_tests_pass_once_they_are_installed(
    packages: dict[Kind, Path], installed: Path, tmp_path: Path
) -> None:
    folders = [str(path / "tests") for path in packages.values()]
    options = ("-q", "-p", "no:cacheprovider", "-W", "error", f"--rootdir={tmp_path}")
    done = run_python(["-m", "pytest", *options, *folders], installed, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@every_kind
def test_they_are_listed_with_their_distribution(kind: Kind, outcomes: dict[str, Outcome]) -> None:
    done = outcomes["list policies" if kind is Kind.POLICY else "list decoders"]
    assert (done.code, done.stderr) == (0, "")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(f" {NAMES[kind]} "))
    assert f"freshkv-{NAMES[kind]} 0.1.0".lower() in line.lower()


def test_they_are_compared(outcomes: dict[str, Outcome]) -> None:
    done = outcomes[COMPARE]
    assert done.code == 0, done.stderr
    assert "my-cache:refresh_every=4" in done.stdout
    assert "Near.best_2" in done.stdout
    assert "failed" not in done.stdout


def test_the_doctor_knows_them(outcomes: dict[str, Outcome]) -> None:
    assert "policy my-cache\n" in outcomes["doctor"].stdout
    assert "decoder Near.best_2\n" in outcomes["doctor"].stdout


@every_kind
def test_a_package_holds_what_it_needs_and_nothing_is_left_to_fill_in(kind: Kind, packages: dict[Kind, Path]) -> None:
    folder, module = packages[kind], module_name(NAMES[kind])
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    test = f"tests/test_{module}.py"
    assert set(found) == {
        ".gitignore", "README.md", "pyproject.toml", f"{module}/__init__.py", f"{module}/{kind}.py", test,
    }  # fmt: skip
    assert not any("$" in text for text in found.values())
    project = tomllib.loads(found["pyproject.toml"])["project"]
    assert project["entry-points"]["freshkv"] == {NAMES[kind]: module}
    assert class_name(kind, NAMES[kind]) in found[test]
    assert "To make it yours, change" in found[f"{module}/{kind}.py"]


@every_kind
def test_what_is_written_is_linted(kind: Kind, packages: dict[Kind, Path]) -> None:
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("needs ruff, of the extra dev")
    options = ("--isolated", "--line-length=120")
    for command in (("check", "--select=E,F,I,UP,B,RUF", *options), ("format", "--check", *options)):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "."],
            cwd=packages[kind], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("policy", "dual", "taken by the policy freshkv.policies.dual.DualCache"),
        ("policy", "Dual", "taken by the policy"),
        ("decoder", "wino", "taken by the decoder"),
        ("policy", "my cache", "cannot be the name of a policy"),
        ("policy", "2fast", "a letter first"),
        ("decoder", "near-", "a letter or digit last"),
        ("policy", "a:b", "cannot be the name"),
        ("policy", "../x", "cannot be the name"),
        ("policy", "", "cannot be the name"),
        ("policy", "größe", "cannot be the name"),
    ],
)
def test_a_name_that_cannot_be_is_one_message(
    kind: str, name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = new(kind, name)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("Error: ")
    assert not list(tmp_path.iterdir())


def test_a_module_that_is_installed_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "freshkv_there.py").touch()
    result = new("policy", "there")
    assert result.exit_code == 2
    assert "A module freshkv_there is installed already" in result.stderr


def test_a_folder_in_use_is_left_alone_and_an_empty_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "freshkv-mine").mkdir()
    assert new("policy", "mine").exit_code == 0
    before = sorted(tmp_path.rglob("*"))
    again = new("policy", "mine")
    assert again.exit_code == 2
    assert "freshkv-mine holds something already" in again.stderr
    (tmp_path / "file").touch()
    assert "Cannot write to file" in new("policy", "mine", "--folder", "file").stderr
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "file"])


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (Kind.POLICY, "my-cache", "MyCachePolicy"),
        (Kind.POLICY, "selection", "SelectionPolicy"),
        (Kind.POLICY, "cache", "CachePolicy_"),
        (Kind.DECODER, "ranked", "RankedDecoder_"),
        (Kind.DECODER, "dLLM2.x", "DLLM2XDecoder"),
    ],
)
def test_class_names_hide_no_name_of_freshkv(kind: Kind, name: str, expected: str) -> None:
    assert class_name(kind, name) == expected


def test_help_teaches_with_an_example() -> None:
    result = new("--help")
    assert result.exit_code == 0
    assert "  freshkv new policy my-cache" in result.output


def test_what_comes_next_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = new("decoder", "near").output
    assert "Start in freshkv-near/freshkv_near/decoder.py" in said
    assert "  freshkv compare --decoder near\n" in said
