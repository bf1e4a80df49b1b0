"""Counts what each request takes while it shares passes with others, and keeps its records where they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import define, evolve, field
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Commit
from freshkv.core.fetching import on_host
from freshkv.core.forward_result import ForwardResult
from freshkv.core.plan import StepPlan
from freshkv.core.recorder import record_of
from freshkv.core.request_queue import Numbered
from freshkv.core.state import RunState
from freshkv.core.trace import RECORDED, StepRecord, Trace


@define(eq=False)
class Tally:
    """One request that is being decoded."""

    numbered: Numbered
    forwards: int = 0
    passes: float = 0.0
    rows: int = 0  #: over all passes and layers
    seconds: float = 0.0
    tokens: Tensor = field(
        factory=lambda: torch.empty(0, dtype=torch.long)
    )  #: [prompt + gen_length], after the last pass
    records: list[StepRecord] = field(factory=list)


class RequestRecorder:
    """Is told of every step. Its tallies stand in the order of the batch."""

    def __init__(self, *, keep_traces: bool) -> None:
        self._keep_traces = keep_traces
        self._tallies: list[Tally] = []

    def admit(self, newcomers: list[Numbered]) -> None:
        """They take part from the next pass on, behind the others."""
        self._tallies += [Tally(numbered) for numbered in newcomers]

    def record(self, after: RunState, plan: StepPlan, result: ForwardResult, commit: Commit) -> None:
        """A pass of all that are present; ``after`` is the state behind its commit."""
        together = record_of(after, plan, result, commit) if self._keep_traces else None
        for place, tally in enumerate(self._tallies):
            rows = _rows_of(result, place)
            tally.forwards += 1
            tally.passes += 1 / len(self._tallies)
            tally.rows += sum(rows)
            start = after.tokens.shape[SEQ] - tally.numbered.request.columns
            tally.tokens = after.tokens[place, start:]
            if together is not None:
                tally.records.append(_alone(together, result, place, start))

    def spend(self, seconds: float) -> None:
        """The last pass took so long."""
        for tally in self._tallies:
            tally.seconds += seconds / len(self._tallies)

    def leave(self, going: list[bool]) -> list[Tally]:
        """Those for whom ``going`` says so are not present any more."""
        gone = [tally for tally, leaves in zip(self._tallies, going, strict=True) if leaves]
        self._tallies = [tally for tally, leaves in zip(self._tallies, going, strict=True) if not leaves]
        return gone


def trace_of(tally: Tally, mask_token_id: int, facts: Mapping[str, Any]) -> Trace:
    """The passes of a request alone, on the CPU."""
    records = on_host(tally.records)
    return Trace(records, len(tally.numbered.request.input_ids), mask_token_id, dict(facts))


def _rows_of(result: ForwardResult, place: int) -> tuple[int, ...]:
    """Rows of one sequence in each layer, shadow rows too."""
    shadow = 0 if result.shadow is None else result.shadow.rows.counts[place]
    return tuple(rows.counts[place] + shadow for rows in result.refreshed)


def _alone(record: StepRecord, result: ForwardResult, place: int, start: int) -> StepRecord:
    """The record of one sequence, whose canvas begins in column ``start``."""
    mine = slice(place, place + 1)
    tensors: dict[str, Any] = {name: getattr(record, name)[mine] for name in RECORDED}
    tensors |= {name: part[:, start:] for name, part in tensors.items() if name not in ("keys", "active")}
    layers = record.refreshed_by_layer
    return evolve(
        record,
        **tensors,
        refreshed_by_layer=None if layers is None else layers[:, mine, start:],
        rows_by_layer=_rows_of(result, place),
        shadow_rows=0 if result.shadow is None else result.shadow.rows.counts[place],
        probed_by_layer=_counted(result.probed, place),
        watched_by_layer=_counted(result.watched, place),
    )


def _counted(counts: tuple[tuple[int, ...], ...], place: int) -> tuple[int, ...]:
    mine = tuple(layer[place] for layer in counts)
    return mine if any(mine) else ()
