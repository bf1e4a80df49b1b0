"""Tensors within views and answers: found by name, cloned, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from freshkv.core.distribution import Distribution

_CALLED = {"StepView": "view", "LayerView": "layer", "Prediction": "prediction", "Distribution": "distribution"}


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors that an argument or answer holds, with names such as ``view.tokens``."""
    name = name or _CALLED.get(type(value).__name__, "an argument")
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Distribution):
        yield f"{name}.logits", value.logits
        yield f"{name}.mask_logit", value.mask_logit
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from named_tensors(part, f"{name}[{key!r}]")
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from named_tensors(getattr(value, field.name), f"{name}.{field.name}")


def cloned(value: Any) -> Any:
    """The same facts in other memory."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Distribution):
        return Distribution(value.logits.clone(), value.mask_logit.clone(), value.mask_token_id)
    if isinstance(value, Mapping):
        return {key: cloned(part) for key, part in value.items()}
    if attrs.has(type(value)):
        fields = attrs.fields(type(value))
        return attrs.evolve(value, **{field.alias: cloned(getattr(value, field.name)) for field in fields})
    return value


def same(first: Any, second: Any) -> bool:
    """Whether two values hold the same numbers; NaN equals NaN."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return same_tensor(first, second)
    one, other = dict(named_tensors(first)), dict(named_tensors(second))
    if one.keys() != other.keys() or type(first) is not type(second):
        return False
    if not one and not attrs.has(type(first)):
        return bool(first == second)
    return all(same_tensor(tensor, other[name]) for name, tensor in one.items())


def same_tensor(first: Tensor, second: Tensor) -> bool:
    """Equal in dtype, shape and every number; NaN equals NaN."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    equal = first == second
    if first.dtype.is_floating_point:
        equal = equal | (first.isnan() & second.isnan())
    return bool(equal.all())


def difference(first: Any, second: Any) -> str:
    """Which part of two answers differs, in words."""
    one, other = dict(named_tensors(first, "answer")), dict(named_tensors(second, "answer"))
    for name, tensor in one.items():
        if name not in other:
            return f"{name} is there only once"
        if not same_tensor(tensor, other[name]):
            return _difference(name, tensor, other[name])
    return "the parts that are given differ"


def _difference(name: str, first: Tensor, second: Tensor) -> str:
    if first.shape != second.shape or first.dtype != second.dtype:
        return f"{name} has another shape or dtype"
    places = (first != second).nonzero().tolist()
    return f"{name} differs at {places[0]}" + (f" and {len(places) - 1} other places" if len(places) > 1 else "")


def first_place(mask: Tensor) -> tuple[int, int]:
    """(sequence, column) of the first True of a mask [batch, seq]."""
    sequence, column = torch.nonzero(mask)[0].tolist()
    return int(sequence), int(column)
