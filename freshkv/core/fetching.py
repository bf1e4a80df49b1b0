"""What the host takes from the device, in as few transfers as can be: for each of them it waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from freshkv.core.trace import BY_LAYER, RECORDED, StepRecord

#: records that are fetched at a time
MOST_FETCHED = 64


def fetch(masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``masks``, bool of any shapes and on one device, on the host: one transfer for all of them."""
    if all(mask.device.type == "cpu" for mask in masks.values()):
        return dict(masks)
    told = torch.cat([mask.flatten() for mask in masks.values()]).cpu()
    parts = torch.split(told, [mask.numel() for mask in masks.values()])
    return {name: part.view(mask.shape) for (name, mask), part in zip(masks.items(), parts, strict=True)}


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
