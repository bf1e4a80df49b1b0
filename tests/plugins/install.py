"""Tiny distributions, installed by pip into a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from attrs import field, frozen

ROOT = Path(__file__).parents[2]


@frozen
class Package:
    """A distribution of one module with an entry point in the group ``freshkv``."""

    name: str  #: of the distribution
    source: str
    version: str = "1.2"
    plugin: str = field()  #: name of the entry point
    module: str = field()

    @plugin.default
    def _plugin(self) -> str:
        return self.name.removeprefix("freshkv-")

    @module.default
    def _module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"

    def write_wheel(self, folder: Path, target: str | None = None) -> Path:
        """A wheel; ``target`` is what the entry point names, the module if left out."""
        stem = f"{self.name.replace('-', '_')}-{self.version}"
        texts = {
            f"{self.module}.py": self.source,
            f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n"
            "Requires-Dist: freshkv>=0.1\n",
            f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
            f"{stem}.dist-info/entry_points.txt": f"[freshkv]\n{self.plugin} = {target or self.module}\n",
        }
        record = "".join(f"{name},,\n" for name in (*texts, f"{stem}.dist-info/RECORD"))
        path = folder / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in {**texts, f"{stem}.dist-info/RECORD": record}.items():
                wheel.writestr(name, text)
        return path


def pip_install(folder: Path, what: Iterable[Path]) -> None:
    """Install wheels or projects, and nothing that they need, into ``folder``."""
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), *map(str, what)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_python(
    arguments: Sequence[str], site: Path, folder: Path, *, alone: bool = False
) -> subprocess.CompletedProcess[str]:
    """A new interpreter in ``folder`` that sees what is installed in ``site``, and this freshkv unless ``alone``."""
    path = str(site) if alone else f"{ROOT}{os.pathsep}{site}"
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


COMMANDS = """
import json, shlex, sys
from typer.testing import CliRunner
from freshkv.cli import app

for command in sys.argv[1:]:
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    print(json.dumps([command, result.exit_code, result.stdout, result.stderr]))
"""


@frozen
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def run_freshkv(*commands: str, site: Path, folder: Path, alone: bool = False) -> dict[str, Outcome]:
    """Commands of ``freshkv``, in order in one new interpreter; warnings are shown as users see them."""
    done = run_python(["-W", "default", "-c", COMMANDS, *commands], site, folder, alone=alone)
    assert done.returncode == 0, done.stderr
    return {command: Outcome(*facts) for command, *facts in map(json.loads, done.stdout.splitlines())}
