"""The processes of an evaluation: one, or those that ``accelerate launch`` started."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

#: processes wait for each other at the end, and one may have much more left to decode
PATIENCE = timedelta(weeks=4)


@frozen(eq=False)
class Processes:
    """One process among all."""

    rank: int
    size: int
    device: torch.device | None  #: where this process computes; None: wherever the user says

    @classmethod
    def join(cls) -> Processes:
        """Find the others, as the launcher told in the environment; without a launcher there are none."""
        from accelerate import PartialState

        # without an accelerator, accelerate joins processes only where it is told to stay on the CPU
        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
        alone = state.num_processes == 1
        return cls(state.process_index, state.num_processes, None if alone else state.device)

    @property
    def is_first(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def gather_objects(self, value: Any) -> list[Any]:
        """``value`` of every process, in their order."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[Any] = gather_object([value])
        return gathered

    def gather_tensors(self, value: Tensor) -> Tensor:
        """``value`` of every process, concatenated."""
        if self.size == 1:
            return value
        from accelerate.utils import gather

        gathered: Tensor = gather(value)
        return gathered

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            from accelerate.utils import wait_for_everyone

            wait_for_everyone()
