"""Collects what happens into a trace. Finished sequences keep their final tokens in every later record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.canvas import Canvas
from freshkv.core.decoder import Commit
from freshkv.core.fetching import on_host
from freshkv.core.forward_result import ForwardResult
from freshkv.core.plan import StepPlan
from freshkv.core.state import RunState
from freshkv.core.trace import RECORDED, StepRecord, Trace


class Recorder:
    """Keeps one record a step, on the device of the run until somebody asks for it."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._tokens = canvas.tokens()  # long [batch, seq], of all sequences, finished or not
        self._confidence = torch.full(self._tokens.shape, float("-inf"), device=self._tokens.device)
        self._records: list[StepRecord] = []

    @property
    def tokens(self) -> Tensor:
        """long [batch, seq]: the canvas as it stands, all sequences."""
        return self._tokens

    def record(self, after: RunState, plan: StepPlan, result: ForwardResult, commit: Commit) -> None:
        """Add a step; ``after`` is the state behind its commit."""
        record = record_of(after, plan, result, commit)
        if after.batch < self._canvas.batch:
            record = self._among_all(record, after.sequence)
        self._tokens, self._confidence = record.tokens, record.confidence
        self._records.append(record)

    def _among_all(self, record: StepRecord, who: Tensor) -> StepRecord:
        """``record`` of the sequences ``who``, long [present], as one of all sequences."""
        nothing = torch.zeros_like(self._canvas.is_valid)
        batch, layers = nothing.shape[0], record.refreshed_by_layer

        def spread(part: Tensor, rest: Tensor | None = None) -> Tensor:
            return (part.new_zeros((batch, *part.shape[1:])) if rest is None else rest).index_copy(0, who, part)

        rest = {"tokens": self._tokens, "confidence": self._confidence}
        tensors: dict[str, Any] = {name: spread(getattr(record, name), rest.get(name)) for name in RECORDED}
        return evolve(
            record,
            **tensors,
            refreshed_by_layer=None if layers is None else torch.stack([spread(mask) for mask in layers]),
        )

    def last(self) -> StepRecord:
        """The newest record, on the CPU."""
        return on_host(self._records[-1:])[0]

    def trace(self, facts: Mapping[str, Any]) -> Trace:
        """Everything so far, on the CPU."""
        return Trace(on_host(self._records), self._canvas.prompt_length, self._canvas.mask_token_id, dict(facts))


def record_of(after: RunState, plan: StepPlan, result: ForwardResult, commit: Commit) -> StepRecord:
    """A step of the sequences that took part in it, in their order; ``after`` is the state behind its commit."""
    layers = [rows.mask for rows in result.refreshed]
    uniform = all(mask is layers[0] for mask in layers)
    shadow = 0 if result.shadow is None else result.shadow.rows.count
    return StepRecord(
        tokens=after.tokens,
        committed=commit.positions,
        remasked=torch.zeros_like(commit.positions) if commit.remask is None else commit.remask,
        refreshed=layers[0] if uniform else torch.stack(layers).any(dim=0),
        added=plan.added,
        predicted=plan.predict,
        keys=_visible_keys(plan, after.is_valid),
        confidence=after.confidence,
        active=torch.ones_like(after.is_valid[:, 0]),
        rows_by_layer=tuple(rows.count + shadow for rows in result.refreshed),
        shadow_rows=shadow,
        probed_by_layer=tuple(map(sum, result.probed)),
        watched_by_layer=tuple(map(sum, result.watched)),
        refreshed_by_layer=None if uniform else torch.stack(layers),
    )


def _visible_keys(plan: StepPlan, is_valid: Tensor) -> Tensor:
    """How many keys may be attended to, long [batch, layers], or [batch, 1] where layers do not differ."""
    visible = plan.visible
    if visible is None:
        return is_valid.sum(dim=SEQ, keepdim=True)
    if visible.ndim == 2:
        return (visible & is_valid).sum(dim=SEQ, keepdim=True)
    return (visible & is_valid[:, None]).sum(dim=-1)
