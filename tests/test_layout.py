"""Imports point one way, the optional stays optional, files stay small."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "freshkv"

#: room -> rooms that its modules may import from, besides itself; the empty one is the package's own front
ALLOWED = {
    "core": set(),
    "policies": {"core"},
    "decoders": {"core"},
    "models": {"core"},
    "compare": {"", "core", "policies", "decoders", "models"},
    "evaluation": {"", "core", "policies", "decoders", "models", "compare"},
    "testing": {"", "core", "policies", "decoders", "models"},
    "cli": {"", "core", "policies", "decoders", "models", "compare", "evaluation", "testing"},
    "__main__": {"cli"},
}
#: room -> packages of extras that its modules may import at their top
OPTIONAL = {"testing": {"hypothesis", "pytest"}, "evaluation": {"lm_eval"}}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: Path) -> str:
    """The part of the package that a module belongs to; empty for those of the package itself."""
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if len(parts) > 1 or parts[0] in ALLOWED else ""


@cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def imported(nodes: list[ast.AST]) -> list[str]:
    """Full names of the modules that some nodes import."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def top_level(module: Path) -> list[ast.AST]:
    """Nodes that run when a module is imported: not those within functions, nor under TYPE_CHECKING."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree_of(module)]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(node)
    return found


def rooms_imported(names: list[str]) -> set[str]:
    parts = [name.split(".") for name in names if name.split(".")[0] == "freshkv"]
    return {part[1] if len(part) > 1 and part[1] in ALLOWED else "" for part in parts}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(module: Path) -> None:
    room = room_of(module)
    rooms = rooms_imported(imported(list(ast.walk(tree_of(module)))))
    if room == "":
        assert not rooms & {"testing", "cli"}, "import freshkv must not need what is optional"
        return
    strays = rooms - ALLOWED.get(room, set()) - {room}
    assert not strays, f"{module.name} of {room} imports from {strays}"


def declared_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = (re.split(r"[<>=!~\[; ]", requirement)[0] for requirement in project["dependencies"])
    return {name.replace("-", "_").lower() for name in names}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix())
def test_only_declared_dependencies_are_imported(module: Path) -> None:
    optional = OPTIONAL.get(room_of(module), set())
    known = declared_dependencies() | set(sys.stdlib_module_names) | {"freshkv"} | optional
    strays = {name.split(".")[0] for name in imported(top_level(module))} - known
    assert not strays, f"{module.name} imports {strays} at its top; only declared dependencies may be"


@pytest.mark.parametrize("folder", ["policies", "decoders"])
def test_a_policy_or_decoder_is_one_file_under_150_lines(folder: str) -> None:
    lengths = {
        path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (PACKAGE / folder).glob("*.py")
    }
    assert {name: length for name, length in lengths.items() if length >= 150} == {}


WITHOUT_EXTRAS = """
import sys

# an entry of None makes the import fail as if nothing were installed
extras = ("pytest", "_pytest", "hypothesis", "plotly", "mkdocs", "pytest_benchmark", "lm_eval", "ray")
sys.modules |= dict.fromkeys(extras)
import freshkv
assert "d2cache" in freshkv.policies() and "confidence" in freshkv.decoders()
assert "freshkv.testing" not in sys.modules
"""


def test_freshkv_works_without_anything_optional_installed() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
