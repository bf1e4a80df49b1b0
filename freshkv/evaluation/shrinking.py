"""Batches that shrink where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from attrs import define

from freshkv.core.capacity import readable
from freshkv.core.errors import DeviceMemoryError
from freshkv.core.memory import free_bytes
from freshkv.core.out_of_memory import release, shortage

Item = TypeVar("Item")
Result = TypeVar("Result")
OnMessage = Callable[[str], None]


@define(eq=False)
class ShrinkingBatch:
    """Works on some items at a time: ``size`` of them, fewer from then on where memory was lacking."""

    size: int
    device: torch.device
    on_message: OnMessage

    def run(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result]) -> list[Result]:
        """What ``work`` makes of each batch of ``items``, in order. Raises DeviceMemoryError for one alone."""
        results: list[Result] = []
        start = 0
        while start < len(items):
            part = items[start : start + self.size]
            try:
                results.append(work(part))
            except Exception as error:
                lacking = shortage(error)
                if lacking is None:
                    raise
            else:
                start += len(part)
                continue
            # behind the handler: the error holds what was computed
            release(self.device)
            self._shrink(len(part), lacking)
        return results

    def _shrink(self, size: int, lacking: str) -> None:
        if size == 1:
            free = readable(free_bytes(self.device))
            raise DeviceMemoryError(
                f"One sequence does not fit the memory of {self.device} by itself: {lacking}; {free} are free. Shorten "
                "it (max_length), or load the model in bfloat16 or over several devices."
            )
        self.size = size // 2
        self.on_message(
            f"{lacking[0].upper()}{lacking[1:]}, with {size} sequences in a pass. Going on with {self.size}."
        )
