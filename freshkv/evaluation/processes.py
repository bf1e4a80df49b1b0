"""The processes of an evaluation: one, or those that a launcher started.

Either each of them has the whole model and its share of the problems, or all of them hold one model together (tensor
parallel), and each goes through all problems.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from attrs import frozen
from torch import Tensor

from freshkv.models.tensor_parallel import count_processes

T = TypeVar("T")

#: processes wait for each other at the end, and one may have much more left to decode
PATIENCE = timedelta(weeks=4)


@frozen(eq=False)
class Processes:
    """One process among all."""

    rank: int  #: of those that share the problems
    size: int
    device: torch.device | None  #: where this process computes; None: wherever the user says
    part: int = 0  #: of those that hold one model together
    parts: int = 1

    @classmethod
    def join(cls, *, tensor_parallel: bool = False) -> Processes:
        """Find the others, as the launcher told in the environment; without a launcher there are none.

        Raises InputError for ``tensor_parallel`` without a launcher.
        """
        if tensor_parallel:
            count_processes()
        from accelerate import PartialState

        # without an accelerator, accelerate joins processes only where it is told to stay on the CPU
        state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
        if tensor_parallel:
            return cls(rank=0, size=1, device=None, part=state.process_index, parts=state.num_processes)
        alone = state.num_processes == 1
        return cls(state.process_index, state.num_processes, None if alone else state.device)

    @property
    def is_first(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0 and self.part == 0

    def from_first(self, make: Callable[[], T]) -> T:
        """What ``make`` gives; among processes that hold one model together, what it gives in the first of them."""
        if self.parts == 1:
            return make()
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [make() if self.part == 0 else None]
        broadcast_object_list(told)
        made: T = told[0]
        return made

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
