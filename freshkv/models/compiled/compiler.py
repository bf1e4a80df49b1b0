"""Compiles a source file of this folder with the machine's own C++ compiler.

The compiler is asked once a process and file (about a second), for exactly this processor; nothing is kept on disk.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from freshkv.core.errors import InputError

#: compilers that are looked for; the first one that can is taken
COMPILERS = ("c++", "g++", "clang++")

#: torch brings the OpenMP that the library is linked against when it is loaded, so that both share their threads
COMPILE = ("-std=gnu++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-fopenmp", "-c")
LINK = ("-shared",)

INTEGER, ADDRESS = ctypes.c_int64, ctypes.c_void_p


@cache
def compiled(name: str) -> ctypes.CDLL:
    """The library of a source file, such as "float32.cpp".

    Raises InputError if there is no compiler, or if it cannot make the library.
    """
    source, compilers = Path(__file__).with_name(name), [found for found in map(shutil.which, COMPILERS) if found]
    reasons = []
    for compiler in compilers:
        try:
            return _compile(compiler, source)
        except _CannotError as error:
            reasons.append(str(error))
    raise unusable("; ".join(reasons) if reasons else f"none of {', '.join(COMPILERS)} is installed")


class _CannotError(Exception):
    """Why one compiler is of no use."""


def _compile(compiler: str, source: Path) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="freshkv-") as folder:
        objects, library = Path(folder, "kernel.o"), Path(folder, "kernel.so")
        commands: tuple[list[str | Path], ...] = (
            [compiler, *COMPILE, source, "-o", objects],
            [compiler, *LINK, objects, "-o", library],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = "\n".join(done.stderr.strip().splitlines()[-3:])
                raise _CannotError(f"{compiler} could not compile {source.name}:\n{last}\n")
        try:
            return ctypes.CDLL(str(library))  # stays loaded when its file is gone
        except OSError as error:
            raise _CannotError(f"what {compiler} made of {source.name} cannot be loaded ({error})") from error


def unusable(why: str) -> InputError:
    """That nothing can be compiled here."""
    return InputError(
        "prepacked='compiled' needs a C++ compiler with OpenMP (on Debian: apt install g++), and for bfloat16 an x86 "
        f"processor with AMX, on Linux; {why}. Use prepacked=True, which needs neither."
    )
