"""The state of a run between steps. Values are replaced, never written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn import functional

from freshkv.core.axes import BATCH, SEQ
from freshkv.core.canvas import Canvas
from freshkv.core.decoder import Commit
from freshkv.core.predict import Predicted
from freshkv.core.uploads import numbers
from freshkv.core.view import StepView


@frozen(kw_only=True, eq=False)
class RunState:
    """What is known of the sequences that are still being decoded. Tensors [batch, seq] unless stated."""

    mask_token_id: int
    vocabulary: int
    eos_token_id: int | None  #: a sequence ends at its first EOS; None: never before the last position
    tokens: Tensor  #: long
    is_valid: Tensor  #: bool
    block_index: Tensor  #: long
    committed_at: Tensor  #: long, -1 where not committed
    dirty: Tensor  #: bool
    age: Tensor  #: long
    confidence: Tensor  #: float32
    sequence: Tensor  #: long [batch]
    active_block: Tensor  #: long [batch]; ``block`` on the device
    step: tuple[int, ...]  #: of each sequence
    step_in_block: tuple[int, ...]
    block: tuple[int, ...]  #: the active one
    gen_length: tuple[int, ...]  #: positions of the response, which are the last columns
    block_length: tuple[int, ...]  #: positions
    signals: Mapping[str, Tensor]
    policy_memory: Mapping[str, Tensor]
    decoder_memory: Mapping[str, Tensor]

    @classmethod
    def start(cls, canvas: Canvas) -> RunState:
        """Before the first step: all masks, nothing refreshed."""
        tokens = canvas.tokens()
        batch = canvas.batch
        return cls(
            mask_token_id=canvas.mask_token_id,
            vocabulary=canvas.vocabulary,
            eos_token_id=canvas.eos_token_id,
            tokens=tokens,
            is_valid=canvas.is_valid,
            block_index=canvas.block_index(),
            committed_at=torch.full_like(tokens, -1),
            dirty=torch.ones_like(canvas.is_valid),
            age=torch.zeros_like(tokens),
            confidence=torch.full(tokens.shape, float("-inf"), device=tokens.device),
            sequence=torch.arange(batch, device=tokens.device),
            active_block=torch.zeros(batch, dtype=torch.long, device=tokens.device),
            step=(0,) * batch,
            step_in_block=(0,) * batch,
            block=(0,) * batch,
            gen_length=(canvas.gen_length,) * batch,
            block_length=(canvas.block_length,) * batch,
            signals={},
            policy_memory={},
            decoder_memory={},
        )

    def with_signals(self, signals: Mapping[str, Tensor]) -> RunState:
        """The same state with other signals."""
        return evolve(self, signals=signals)

    @property
    def batch(self) -> int:
        """Sequences still being decoded."""
        return len(self.step)

    @cached_property
    def is_masked(self) -> Tensor:
        """bool [batch, seq]: response positions that hold the mask token."""
        return (self.tokens == self.mask_token_id) & (self.block_index >= 0)

    @cached_property
    def is_open(self) -> Tensor:
        """bool [batch, seq]: masked positions still to be decided: those before the first EOS, if it ends the run."""
        if self.eos_token_id is None:
            return self.is_masked
        is_eos = (self.tokens == self.eos_token_id) & (self.block_index >= 0)
        return self.is_masked & (is_eos.long().cumsum(dim=SEQ) == 0)

    @cached_property
    def in_block(self) -> Tensor:
        """bool [batch, seq]: the active block of each sequence."""
        return self.block_index == self.active_block[:, None]

    def groups(self) -> list[tuple[int, ...]]:
        """Sequences (by place) at the same step and the same step of their block, with responses that divide alike."""
        found: dict[tuple[int, ...], list[int]] = {}
        keys = zip(self.step, self.step_in_block, self.gen_length, self.block_length, strict=True)
        for place, key in enumerate(keys):
            found.setdefault(key, []).append(place)
        return [tuple(places) for places in found.values()]

    def take(self, places: tuple[int, ...]) -> RunState:
        """The state of some sequences alone, in the order of ``places``."""
        if places == tuple(range(self.batch)):
            return self
        index = numbers(places, self.tokens.device)

        def rows(tensor: Tensor) -> Tensor:
            return tensor.index_select(BATCH, index)

        def each(values: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            return {name: rows(value) for name, value in values.items()}

        tensors: dict[str, Any] = {name: rows(getattr(self, name)) for name in _PER_SEQUENCE}
        counters: dict[str, Any] = {name: tuple(getattr(self, name)[place] for place in places) for name in _COUNTERS}
        return evolve(
            self,
            **tensors,
            **counters,
            signals=each(self.signals),
            policy_memory=each(self.policy_memory),
            decoder_memory=each(self.decoder_memory),
        )

    def widened(self, seq: int) -> RunState:
        """The same with padding on the left, so that the canvas has ``seq`` columns. Before the first step only."""
        columns = (seq - self.tokens.shape[SEQ], 0)
        padded: dict[str, Any] = {
            name: functional.pad(getattr(self, name), columns, value=fill) for name, fill in _PADDING.items()
        }
        return evolve(self, **padded)

    def joined(self, others: RunState) -> RunState:
        """These sequences, and ``others`` behind them, on canvases of the same width.

        What one side alone has a signal or memory of is zeros for the other.
        """

        def both(name: str) -> Tensor:
            return torch.cat((getattr(self, name), getattr(others, name)))

        def each(values: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            forms = {**more, **values}
            return {
                name: torch.cat((_or_zeros(values, name, form, self.batch), _or_zeros(more, name, form, others.batch)))
                for name, form in forms.items()
            }

        tensors: dict[str, Any] = {name: both(name) for name in _PER_SEQUENCE}
        counters: dict[str, Any] = {name: getattr(self, name) + getattr(others, name) for name in _COUNTERS}
        return evolve(
            self,
            **tensors,
            **counters,
            signals=each(self.signals, others.signals),
            policy_memory=each(self.policy_memory, others.policy_memory),
            decoder_memory=each(self.decoder_memory, others.decoder_memory),
        )

    def view(self, memory: Mapping[str, Tensor], row_offset: int) -> StepView:
        """What a policy or decoder sees; all sequences must be of one group."""
        return StepView(
            tokens=self.tokens,
            is_masked=self.is_masked,
            is_open=self.is_open,
            is_prompt=self.block_index < 0,
            is_valid=self.is_valid,
            in_block=self.in_block,
            block_index=self.block_index,
            block_length=self.block_length[0],
            gen_length=self.gen_length[0],
            step=self.step[0],
            step_in_block=self.step_in_block[0],
            dirty=self.dirty,
            age=self.age,
            committed_at=self.committed_at,
            confidence=self.confidence,
            sequence=self.sequence,
            signals=self.signals,
            # what others have remembered before is no fact of sequences that only begin
            memory=memory if self.step[0] > 0 else {},
            row_offset=row_offset,
        )

    def after_forward(self, refreshed: Tensor, predicted: Predicted, signals: Mapping[str, Tensor]) -> RunState:
        """Rows in ``refreshed``, bool [batch, seq] (in every layer), are clean; confidences are as now predicted."""
        return evolve(
            self,
            dirty=self.dirty & ~refreshed,
            age=torch.where(refreshed, 0, self.age),
            confidence=torch.where(predicted.everywhere, predicted.confidence, self.confidence),
            signals=signals,
        )

    def after_commit(self, commit: Commit, remember: Mapping[str, Tensor]) -> RunState:
        """Fix the committed tokens and put the mask back where asked; those rows are dirty.

        ``remember`` is what the policy wants kept; what is not named again stays as it was.
        """
        positions, remask = commit.positions, commit.remask
        together = len(set(self.step)) == 1
        step = self.step[0] if together else numbers(self.step, self.tokens.device)[:, None]
        tokens, when, dirty = self.tokens, self.committed_at, self.dirty | positions
        if remask is not None:
            tokens, when = tokens.masked_fill(remask, self.mask_token_id), when.masked_fill(remask, -1)
            dirty = dirty | remask
        return evolve(
            self,
            tokens=torch.where(positions, commit.tokens, tokens),
            committed_at=torch.where(positions, step, when),
            dirty=dirty,
            age=self.age + 1,
            policy_memory={**self.policy_memory, **remember},
            decoder_memory={**self.decoder_memory, **commit.remember},
        )

    def advance(self, block_unfinished: Sequence[bool]) -> RunState:
        """Count the step; sequences whose block is decided open the next one."""
        moved = list(zip(self.block, self.step_in_block, block_unfinished, strict=True))
        block = tuple(block if stays else block + 1 for block, _, stays in moved)
        return evolve(
            self,
            step=tuple(step + 1 for step in self.step),
            block=block,
            active_block=self.active_block if block == self.block else numbers(block, self.tokens.device),
            step_in_block=tuple(count + 1 if stays else 0 for _, count, stays in moved),
        )


def _or_zeros(values: Mapping[str, Tensor], name: str, form: Tensor, batch: int) -> Tensor:
    """The one of this name, or zeros, [batch, ...], in the form of another."""
    return values[name] if name in values else form.new_zeros((batch, *form.shape[1:]))


_COUNTERS = ("step", "step_in_block", "block", "gen_length", "block_length")
_PER_SEQUENCE = (
    "tokens",
    "is_valid",
    "block_index",
    "committed_at",
    "dirty",
    "age",
    "confidence",
    "sequence",
    "active_block",
)
#: what columns of padding hold before the first step
_PADDING = {
    "tokens": 0,  # any: they are masked out
    "is_valid": False,
    "block_index": -1,
    "committed_at": -1,
    "dirty": True,
    "age": 0,
    "confidence": float("-inf"),
}
