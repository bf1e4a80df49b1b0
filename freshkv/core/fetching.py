"""Records of a run, from its device to the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from freshkv.core.trace import BY_LAYER, RECORDED, StepRecord

#: records that are fetched at a time
MOST_FETCHED = 64


def on_host(records: Sequence[StepRecord]) -> tuple[StepRecord, ...]:
    """Copies of ``records`` on the CPU, which share no memory with the run.

    Tensors of one shape are fetched together: the host waits a few times for a run and not for every step.
    """
    fetched: list[StepRecord] = []
    for start in range(0, len(records), MOST_FETCHED):
        part = records[start : start + MOST_FETCHED]
        copies = {name: _fetched([getattr(record, name) for record in part]) for name in (*RECORDED, BY_LAYER)}
        for place, record in enumerate(part):
            mine: dict[str, Any] = {name: copies[name][place] for name in copies}
            fetched.append(evolve(record, **mine))
    return tuple(fetched)


def _fetched(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Each on the CPU, None where it is; one transfer for all of the same shape."""
    copies: list[Tensor | None] = [None] * len(tensors)
    alike: dict[torch.Size, list[int]] = {}
    for place, tensor in enumerate(tensors):
        if tensor is not None:
            alike.setdefault(tensor.shape, []).append(place)
    for places in alike.values():
        together = torch.stack([tensor for tensor in (tensors[place] for place in places) if tensor is not None])
        for place, copy in zip(places, together.cpu().unbind(), strict=True):
            copies[place] = copy.clone()  # a record that is kept or sent must not take the others along
    return copies
