"""Strategies for policies and decoders with random options, for any class whose fields a spec string can hold."""

from __future__ import annotations

import types
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
from hypothesis import reject
from hypothesis import strategies as st

from freshkv.core.spec import Configurable

T = TypeVar("T", bound=Configurable)

#: candidates by type of the field; those that its validator refuses are left out. Texts stay at their defaults: they
#: may name files
CANDIDATES: Mapping[Any, tuple[Any, ...]] = {
    int: (0, 1, 2, 3, 4, 7, 16),
    float: (0.0, 0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0, 1.5, 3.0, 10.0),
    bool: (False, True),
}


def configured(cls: type[T]) -> st.SearchStrategy[T]:
    """Objects of ``cls`` with each option at its default or at any value that is allowed by itself.

    Every option needs a default. Combinations that the class refuses are left out.
    """
    return st.composite(_draw)(cls)


def configured_any(known: Mapping[str, type[T]]) -> st.SearchStrategy[T]:
    """Objects of any class in ``known``, such as ``freshkv.policies()``."""
    return st.sampled_from(sorted(known)).flatmap(lambda name: configured(known[name]))


def _draw(draw: st.DrawFn, cls: type[T]) -> T:
    built = _try(cls, draw(st.fixed_dictionaries({}, optional=_options(cast("Hashable", cls)))))
    if built is None:
        reject()
    return built


@cache
def _options(cls: Any) -> dict[str, st.SearchStrategy[Any]]:
    fields = [field for field in attrs.fields(attrs.resolve_types(cls)) if field.init]
    options = {}
    for field in fields:
        allowed = [value for value in _candidates(field.type) if _try(cls, {field.alias: value}) is not None]
        if allowed:
            options[field.alias] = st.sampled_from(allowed)
    return options


def _candidates(kind: Any) -> tuple[Any, ...]:
    origin = get_origin(kind)
    if origin is Literal:
        return get_args(kind)
    if origin in (Union, types.UnionType):
        return tuple(value for part in get_args(kind) for value in _candidates(part))
    return (None,) if kind is type(None) else CANDIDATES.get(kind, ())


def _try(cls: type[T], values: Mapping[str, Any]) -> T | None:
    try:
        return cls(**values)
    except (TypeError, ValueError):
        return None
