"""Many rows take turns, so that what a layer widens exists for some of them at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: bytes of a column that are computed at a time, 640 rows of float32: enough for products to be as fast as they get
MOST_BYTES = 2560

#: what [rows, ...] becomes, [rows, width], row by row
OfRows = Callable[[Tensor], Tensor]


def most_rows(element_size: int) -> int:
    """Rows that are computed at a time, of elements of so many bytes."""
    return max(MOST_BYTES // element_size, 1)


def turns_of(count: int, element_size: int) -> list[slice]:
    """``count`` rows in parts of nearly equal size, at most ``most_rows`` each; at least one part."""
    parts = max(-(-count // most_rows(element_size)), 1)
    return [slice(count * part // parts, count * (part + 1) // parts) for part in range(parts)]


def computed(compute: OfRows, rows: Tensor) -> Tensor:
    """What ``compute`` makes of ``rows`` [rows, ...]."""
    turns = turns_of(rows.shape[0], rows.element_size())
    return compute(rows) if len(turns) == 1 else torch.cat([compute(rows[part]) for part in turns])


def added(hidden: Tensor, compute: OfRows, rows: Tensor, *, own: bool) -> Tensor:
    """``hidden`` [rows, width] plus what ``compute`` makes of ``rows`` [rows, ...].

    ``own`` says that nobody else holds ``hidden``: the sum takes its place.
    """
    turns = turns_of(hidden.shape[0], hidden.element_size())
    if len(turns) == 1:
        return hidden.add_(compute(rows)) if own else hidden + compute(rows)
    total = hidden if own else torch.empty_like(hidden)
    for part in turns:
        torch.add(hidden[part], compute(rows[part]), out=total[part])
    return total
