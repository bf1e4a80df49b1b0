"""Experiments and sweeps as files: TOML or YAML, checked field by field before anything runs.

A file holds the fields of ``Experiment`` under their own names, and under ``sweep`` the axes of a ``Sweep``. A field
that may be None is written ``"none"``, because TOML has no word for it.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import attrs
import cattrs

from freshkv.compare.experiment import FIELDS, Experiment
from freshkv.compare.file_syntax import Document, parse_document
from freshkv.compare.sweep import AXES, LISTS, Sweep
from freshkv.core.errors import FreshkvError, InputError, did_you_mean

SWEEP = "sweep"
NONE = "none"

_WORDS = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}


def _strict(kind: type, accepted: tuple[type, ...]) -> Any:
    """A reader that does not take one kind of value for another: no "3" for 3, no true for 1."""

    def read(value: Any, _: Any) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(value)
        return kind(value)

    return read


_converter = cattrs.Converter(detailed_validation=False)
for _kind, _accepted in ((int, (int,)), (float, (int, float)), (str, (str,)), (bool, (bool,))):
    _converter.register_structure_hook(_kind, _strict(_kind, _accepted))

_TYPES = {each.name: each.type for each in attrs.fields(attrs.resolve_types(Experiment)) if each.init}
_TYPES |= dict.fromkeys(("tasks", "policies", "decoders"), tuple[str, ...])


def read_experiment_file(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep of a file; ``overrides`` are fields that replace those of the file, axes as well.

    Raises InputError, SpecError or UnknownNameError that names the file, and where possible line and field.
    """
    path, overrides = Path(path), dict(overrides or {})
    document = parse_document(path)
    reading = _Reading(document)
    fields = dict(reading.fields())
    axes = dict(reading.axes())
    if reading.problems:
        raise InputError("\n".join(reading.problems))
    try:
        return Sweep(
            fields={name: value for name, value in fields.items() if name not in overrides} | overrides,
            axes={name: values for name, values in axes.items() if name not in overrides},
        )
    except FreshkvError as error:
        raise type(error)(f"{path}: {error}") from error


class _Reading:
    """Goes through a document and collects what is wrong with it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[str] = []

    def fields(self) -> Iterator[tuple[str, Any]]:
        """The fields of all experiments."""
        for name, value in self._document.content.items():
            if name == SWEEP:
                continue
            if name not in FIELDS:
                known = (*FIELDS, SWEEP)
                self._complain((name,), f"there is no '{name}'.{did_you_mean(str(name), known)} Known: {_list(known)}.")
            else:
                yield from self._read(name, (name,), value)

    def axes(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The axes of the sweep."""
        table = self._document.content.get(SWEEP, {})
        if not isinstance(table, Mapping):
            self._complain((SWEEP,), f"{SWEEP} is {table!r}; expected fields with lists of values.")
            return
        for name, values in table.items():
            place = (SWEEP, name)
            if name in LISTS:
                reason = "an experiment takes a list of them, all on the same problems"
                self._complain(place, f"{name} cannot be swept: {reason}. Move it out of '{SWEEP}'.")
            elif name not in AXES:
                self._complain(place, f"'{name}' cannot be swept.{did_you_mean(str(name), AXES)} Axes: {_list(AXES)}.")
            elif not isinstance(values, list) or not values:
                self._complain(place, f"{SWEEP}.{name} is {values!r}; expected a list of values, at least one.")
            else:
                found = [pair[1] for value in values for pair in self._read(name, place, value)]
                yield name, tuple(found)

    def _read(self, name: str, place: tuple[str, ...], value: Any) -> Iterator[tuple[str, Any]]:
        """The field with its value, or nothing and a complaint."""
        kind = _TYPES[name]
        try:
            yield name, _structure(name, kind, value)
        except Exception:  # cattrs raises several types, and their words are about classes
            self._complain(place, f"{'.'.join(place)} is {value!r}; expected {_describe(name, kind)}.")

    def _complain(self, place: tuple[str, ...], message: str) -> None:
        self.problems.append(f"{self._document.where(place)}: {message}")


def _structure(name: str, kind: Any, value: Any) -> Any:
    """The value as the field has it; raises for one of another type."""
    kinds = get_args(kind) if _is_union(kind) else (kind,)
    if type(None) in kinds and (value is None or (isinstance(value, str) and value.lower() == NONE)):
        return None
    if name in LISTS:
        value = value if isinstance(value, list) else [value]
    for other in kinds[:-1]:
        with suppress(Exception):
            return _converter.structure(value, other)
    return _converter.structure(value, kinds[-1])


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _describe(name: str, kind: Any) -> str:
    if name in LISTS:
        return "a list of whole numbers" if name == "seeds" else "a list of texts in quotes"
    parts = get_args(kind) if _is_union(kind) else (kind,)
    return " or ".join(f'"{NONE}"' if part is type(None) else _WORDS.get(part, str(part)) for part in parts)


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
