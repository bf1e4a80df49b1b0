"""Spec strings: ``name:field=value,...`` to an object with those fields, and back.

Values are read by the type of the field. Text with one of ``, : = |`` or spaces is written in JSON quotes. The normal
form of an object names the fields that differ from their defaults, in the order of the class.

A spec string may also stand for several objects, with grids and ranges as values (``freshkv.core.grid``):
``expand_spec`` writes them out, one by one.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs

from freshkv.core.errors import SpecError, did_you_mean, unknown_name
from freshkv.core.grid import MOST, expand_value, is_grid, looks_like_range, split_alternatives

T = TypeVar("T", bound="Configurable")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_ASSIGNMENT = re.compile(rf"""\s*(?P<key>\w+)\s*=(?P<value>(?:{_QUOTED}|[^,"])*)(?:,|$)""")
_ALTERNATIVE = re.compile(rf"""{_QUOTED}|[^"]*""")
_PLAIN_TEXT = re.compile(r"[^\s,:=|\"]+")
_NONE = "none"
_WORDS = frozenset({_NONE, "true", "false"})


class Configurable:
    """An attrs class with a ``name`` that can be written as a spec string."""

    name: ClassVar[str]

    @property
    def spec(self) -> str:
        """The spec string of this object in its normal form, e.g. ``d2cache:current_k=16``."""
        return format_spec(self)


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """``"d2cache:current_k=16"`` to ``("d2cache", {"current_k": "16"})``; quoted values keep their quotes.

    Raises SpecError when the text is not of the form ``name:field=value,...``.
    """
    name, colon, rest = text.strip().partition(":")
    if not _NAME.fullmatch(name):
        raise SpecError(f"Cannot read the spec {text!r}: expected 'name' or 'name:field=value,...'.")
    if not colon:
        return name, {}
    values: dict[str, str] = {}
    position = 0
    while position < len(rest) or not values:
        match = _ASSIGNMENT.match(rest, position)
        if match is None or not all(map(_ALTERNATIVE.fullmatch, split_alternatives(match["value"]))):
            raise SpecError(f"Cannot read {rest[position:]!r} in the spec {text!r}: expected 'field=value,...'.")
        if match["key"] in values:
            raise SpecError(f"The spec {text!r} gives '{match['key']}' twice.")
        values[match["key"]] = match["value"].strip()
        position = match.end()
    return name, values


def expand_spec(text: str) -> tuple[str, ...]:
    """Every spec string that ``text`` stands for: the product of its fields' values, the last field changing fastest.

    >>> expand_spec("dllm:kp=10|50,kr=2..6..2")[:4]
    ('dllm:kp=10,kr=2', 'dllm:kp=10,kr=4', 'dllm:kp=10,kr=6', 'dllm:kp=50,kr=2')

    A plain spec string stands for itself. Raises SpecError for what cannot be read, and for more than 1000.
    """
    name, fields = split_spec(text)
    if not any(map(is_grid, fields.values())):
        return (text,)
    values = {}
    for key, value in fields.items():
        try:
            values[key] = expand_value(value)
        except ValueError as error:
            raise SpecError(f"{key}={value} in {text!r}: {error}") from None
    count = math.prod(map(len, values.values()))
    if count > MOST:
        raise SpecError(f"{text!r} stands for {count} specs; at most {MOST} are allowed. Leave out some values.")
    return tuple(
        f"{name}:{','.join(f'{key}={value}' for key, value in zip(values, chosen, strict=True))}"
        for chosen in itertools.product(*values.values())
    )


def parse_spec(text: str, kind: str, known: Mapping[str, type[T]]) -> T:
    """The object that ``text`` names among ``known``.

    Raises UnknownNameError for a name that is not known, SpecError for an unknown field or a bad value.
    """
    name, values = split_spec(text)
    if name not in known:
        raise unknown_name(kind, name, known)
    return build(known[name], values, text)


def build(cls: type[T], values: Mapping[str, str], text: str) -> T:
    """An object of ``cls`` whose fields are read from text."""
    fields = {field.name: field for field in fields_of(cls) if field.init}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            raise SpecError(_unknown_field(cls, key, list(fields), text))
        try:
            arguments[key] = _read_one(value, fields[key].type)
        except ValueError as error:
            raise SpecError(f"{key}={value} in {text!r}: {error}") from None
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as error:
        raise SpecError(f"{text!r} is not a valid {cls.name}: {_first_argument(error)}") from error


def _first_argument(error: Exception) -> str:
    """The message of an attrs validator: the first argument; the others are objects of no interest to a reader."""
    return str(error.args[0]) if error.args else str(error)


def format_spec(value: Configurable) -> str:
    """The normal form: the name and the fields that differ from their defaults."""
    parts = []
    for field in fields_of(type(value)):
        current = getattr(value, field.name)
        if field.init and (field.default is attrs.NOTHING or current != _default_of(field)):
            parts.append(f"{field.name}={_write(current)}")
    # a policy that somebody tries out in a script may have no name yet
    name = getattr(value, "name", type(value).__name__)
    return name if not parts else f"{name}:{','.join(parts)}"


def fields_of(cls: type) -> tuple[Any, ...]:
    """The attrs fields of a policy or decoder; none if it is a plain class."""
    return tuple(attrs.fields(attrs.resolve_types(cast("Any", cls)))) if attrs.has(cls) else ()


def _default_of(field: Any) -> Any:
    return field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]


def describe_fields(cls: type) -> dict[str, str]:
    """Field names of a policy or decoder and their defaults as text, in order."""
    return {f.name: _write(_default_of(f)) for f in fields_of(cls) if f.init and f.default is not attrs.NOTHING}


def _unknown_field(cls: type[Configurable], key: str, fields: list[str], text: str) -> str:
    known = ", ".join(fields) if fields else "none"
    return f"'{cls.name}' has no field '{key}' (in {text!r}).{did_you_mean(key, fields)} Its fields: {known}."


def _read_one(text: str, kind: Any) -> Any:
    """A value that must not be a grid; a text that only looks like a range is a text."""
    several = len(split_alternatives(text)) > 1
    try:
        if not several:
            return _read(text, kind)
    except ValueError:
        if not is_grid(text):
            raise
    raise ValueError("one value is expected here; freshkv compare and Experiment take grids and ranges.")


def _read(text: str, kind: Any) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_union(text, get_args(kind))
    if origin is Literal:
        choices = get_args(kind)
        value = _unquote(text)
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}.{did_you_mean(value, choices)}")
        return value
    readers = {int: _read_int, float: _read_float, bool: _read_bool, str: _unquote}
    if kind not in readers:
        raise ValueError(f"fields of type {kind} cannot be written in a spec; build the object in Python instead.")
    return readers[kind](text)


def _read_union(text: str, kinds: tuple[Any, ...]) -> Any:
    if type(None) in kinds and text.lower() == _NONE:
        return None
    failures = []
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return _read(text, kind)
        except ValueError as error:
            failures.append(str(error))
    raise ValueError("; ".join(failures))


def _read_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("expected a whole number.") from None


def _read_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("expected a number.") from None


def _read_bool(text: str) -> bool:
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise ValueError("expected true or false.")
    return values[text.lower()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unquote(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def _write(value: Any) -> str:
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    text = str(value)
    # a text that would be read as something else, or that holds a separator, is quoted
    mistakable = text.lower() in _WORDS or _is_number(text) or looks_like_range(text)
    plain = _PLAIN_TEXT.fullmatch(text) is not None and not mistakable
    return text if not isinstance(value, str) or plain else json.dumps(text)
