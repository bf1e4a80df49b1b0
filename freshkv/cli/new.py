"""``freshkv new``: an installable package for a policy or decoder of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Annotated

import typer

import freshkv
from freshkv.cli.console import output
from freshkv.cli.failures import Debug, reports_errors
from freshkv.core.errors import InputError
from freshkv.core.version import VERSION

HELP = (
    "Write a package for a policy or decoder of your own.\n\n"
    "It holds an example that works and says what to change, its test, and all that pip needs. Once it is installed, "
    "every command knows it by its name.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv new policy my-cache\n"
    "  freshkv new decoder my-decoder --folder ~/research/my-decoder\n"
)


class Kind(StrEnum):
    """What can be written."""

    POLICY = "policy"
    DECODER = "decoder"


@reports_errors
def new(
    kind: Annotated[Kind, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(help="What it is called in spec strings, such as my-cache.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to write it. Left out: freshkv-NAME, here.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Check the name, write the files, say what comes next."""
    check_name(kind, name)
    target = Path(f"freshkv-{name}") if folder is None else folder.expanduser()
    written = write_package(kind, name, target)
    console = output()
    for path in written:
        console.print(f"  {path}", markup=False, soft_wrap=True)
    console.print(
        f"\nStart in {written[0]}. Install it, test it, and compare it:\n\n"
        f"  cd {target}\n"
        "  pip install --editable '.[test]'\n"
        "  python -m pytest\n"
        f"  freshkv compare --{kind} {name}",
        markup=False,
        soft_wrap=True,
    )


def check_name(kind: Kind, name: str) -> None:
    """Raise InputError for a name that cannot be that of a spec string and of a package, or is taken."""
    from freshkv.core.registry import decoders, policies

    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise InputError(
            f"'{name}' cannot be the name of a {kind}: expected letters, digits, '-', '_' and '.', "
            "a letter first and a letter or digit last, such as my-cache."
        )
    known: Mapping[str, type] = policies() if kind is Kind.POLICY else decoders()
    taken = {other.lower(): cls for other, cls in known.items()}.get(name.lower())
    if taken is not None:
        raise InputError(
            f"The name '{name}' is taken by the {kind} {taken.__module__}.{taken.__qualname__}; choose another one."
        )
    if find_spec(module_name(name)) is not None:
        raise InputError(f"A module {module_name(name)} is installed already; choose another name than '{name}'.")


def module_name(name: str) -> str:
    """``my-cache`` to ``freshkv_my_cache``."""
    return f"freshkv_{re.sub(r'[-_.]+', '_', name).lower()}"


def class_name(kind: Kind, name: str) -> str:
    """``my-cache`` to ``MyCachePolicy``; with an underscore if freshkv has a class of that name."""
    words = (word[:1].upper() + word[1:] for word in re.split(r"[-_.]+", name))
    wanted = "".join(words) + kind.capitalize()
    return f"{wanted}_" if wanted in freshkv.__all__ else wanted


def write_package(kind: Kind, name: str, folder: Path) -> list[Path]:
    """Write the package and return its files, the one to begin with first. Raises InputError for a folder in use."""
    module = module_name(name)
    values = {
        "kind": str(kind),
        "name": name,
        "module": module,
        "class_name": class_name(kind, name),
        "version": VERSION,
    }
    places = {
        f"{module}/{kind}.py": f"{kind}/{kind}.py",
        f"tests/test_{module}.py": f"{kind}/test.py",
        f"{module}/__init__.py": f"{kind}/init.py",
        "README.md": f"{kind}/README.md",
        "pyproject.toml": "pyproject.toml",
        ".gitignore": "gitignore",
    }
    templates = files("freshkv.cli") / "templates"
    texts = {
        folder / place: Template((templates / f"{source}.tmpl").read_text("utf-8")).substitute(values)
        for place, source in places.items()
    }
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"The folder {folder} holds something already; name another with --folder, or empty it.")
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write to {folder}: {error.strerror}. Name another folder with --folder.") from error
    return list(texts)
