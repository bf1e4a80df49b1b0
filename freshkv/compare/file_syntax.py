"""The two syntaxes of experiment files, with the lines at which fields stand: TOML, and YAML."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from freshkv.core.errors import InputError

TOML = (".toml",)
YAML = (".yaml", ".yml")

Place = tuple[str, ...]

_TABLE = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"""\s*["']?([\w-]+)["']?\s*=""")


@frozen
class Document:
    """What a file holds."""

    path: Path
    content: Mapping[str, Any]
    lines: Mapping[Place, int]  #: from 1

    def where(self, place: Place) -> str:
        """``study.toml, line 3``."""
        return f"{self.path}, line {self.lines[place]}" if place in self.lines else str(self.path)


def is_yaml(path: Path) -> bool:
    """Whether ``path`` is named as YAML; else it is TOML. Raises InputError for any other name."""
    if path.suffix.lower() not in TOML + YAML:
        raise InputError(f"{path} is no experiment file by its name; expected one that ends with .toml or .yaml.")
    return path.suffix.lower() in YAML


def parse_document(path: Path) -> Document:
    """Read a file. Raises InputError that names the line where it cannot be read."""
    yaml = is_yaml(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the experiment file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}); expected TOML or YAML.") from error
    return _parse_yaml(path, text) if yaml else _parse_toml(path, text)


def _parse_toml(path: Path, text: str) -> Document:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    lines: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _TABLE.match(line):
            table = tuple(match[1].split("."))
            lines.setdefault(table, number)
        elif match := _KEY.match(line):
            lines.setdefault((*table, match[1]), number)
    return Document(path, content, lines)


def _parse_yaml(path: Path, text: str) -> Document:
    import yaml

    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = {} if root is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not valid YAML: {reason}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no fields at its top; expected lines such as 'model: tiny-llada'.")
    lines: dict[Place, int] = {}
    if root is not None:
        _collect_lines(path, root, (), lines)
    return Document(path, content, lines)


def _collect_lines(path: Path, node: Any, place: Place, lines: dict[Place, int]) -> None:
    """Lines of the keys; YAML itself lets a second key of the same name win in silence."""
    for key, value in node.value:
        here, number = (*place, str(key.value)), key.start_mark.line + 1
        if here in lines:
            raise InputError(f"{path}, line {number}: '{'.'.join(here)}' is there twice, first in line {lines[here]}.")
        lines[here] = number
        if value.id == "mapping" and not place:
            _collect_lines(path, value, here, lines)


def write_value(value: Any) -> str:
    """A value, or a list of values, that TOML and YAML read alike."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write_value, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return str(value) if isinstance(value, int) else _write_text(str(value))


def _write_text(text: str) -> str:
    """In double quotes; whatever one of the two would not take as it is, by its number."""
    escaped = json.dumps(text, ensure_ascii=False)
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"
        for char in escaped
    )
