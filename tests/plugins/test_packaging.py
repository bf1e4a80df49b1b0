"""The wheel and the source distribution are whole, small, and install without the repository."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from freshkv.core.version import VERSION
from tests.plugins.install import ROOT, pip_install, run_freshkv, run_python

LARGEST = 12 * 2**20  # bytes of a wheel

missing = [module for module in ("build", "hatchling") if importlib.util.find_spec(module) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}, of the extra dev, to build")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``python -m build`` makes: a source distribution, and a wheel from that."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    return built / f"freshkv-{VERSION}-py3-none-any.whl"


def package_files() -> set[str]:
    """Everything in the package's folder but what Python makes there."""
    paths = (path.relative_to(ROOT) for path in (ROOT / "freshkv").rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if ".dist-info/" not in name} == package_files()
    folder = f"freshkv-{VERSION}.dist-info"
    assert {f"{folder}/METADATA", f"{folder}/entry_points.txt", f"{folder}/licenses/LICENSE"} <= names


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        *(
            f"models/tiny/{model}/{file}"
            for model in ("tiny-llada", "tiny-dream")
            for file in ("model.safetensors", "config.json", "tokenizer.json", "README.md")
        ),
        "decoders/tiny_frequencies.json",
        "cli/templates/pyproject.toml.tmpl",
        "cli/templates/gitignore.tmpl",
        *(
            f"cli/templates/{kind}/{file}.tmpl"
            for kind in ("policy", "decoder")
            for file in (f"{kind}.py", "test.py", "init.py", "README.md")
        ),
    ],
)
def test_what_is_no_code_is_in_the_wheel(name: str, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = archive.read(f"freshkv/{name}")
    assert held == (ROOT / "freshkv" / name).read_bytes()


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST


def test_the_metadata_says_what_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        facts = message_from_bytes(archive.read(f"freshkv-{VERSION}.dist-info/METADATA"))
    assert (facts["Name"], facts["Version"], facts["License-Expression"]) == ("freshkv", VERSION, "Apache-2.0")
    assert facts["Requires-Python"] == ">=3.11"
    assert {"testing", "dev"} <= set(facts.get_all("Provides-Extra", []))
    assert "# freshkv" in str(facts.get_payload())


def test_the_citation_names_this_version() -> None:
    assert f"version: {VERSION}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_source_distribution_can_be_tested(built: Path) -> None:
    root = f"freshkv-{VERSION}"
    with tarfile.open(built / f"{root}.tar.gz") as archive:
        names = {name.removeprefix(f"{root}/") for name in archive.getnames()}
    assert package_files() <= names
    for name in ("pyproject.toml", "Makefile", "constraints.txt", "CITATION.cff", "LICENSE", "tests/conftest.py"):
        assert name in names
    for folder in ("docs", "examples", "plugins", "training", "benchmarks", "tests/golden"):
        assert any(name.startswith(f"{folder}/") for name in names)


def test_it_works_where_the_repository_is_not(wheel: Path, tmp_path: Path) -> None:
    site, folder = tmp_path / "site", tmp_path / "work"
    folder.mkdir()
    pip_install(site, [wheel])
    done = run_python(["-c", "import freshkv; print(freshkv.__file__)"], site, folder, alone=True)
    assert done.stdout.strip() == str(site / "freshkv/__init__.py")
    outcomes = run_freshkv("doctor", "new policy first", site=site, folder=folder, alone=True)
    doctor = outcomes["doctor"].stdout
    assert "tiny-llada" in doctor
    assert "problem: bundled" not in doctor
    assert outcomes["new policy first"].code == 0
    assert (folder / "freshkv-first/freshkv_first/policy.py").is_file()
    assert (site / "bin/freshkv").is_file() or (site / "bin/freshkv.exe").is_file()
