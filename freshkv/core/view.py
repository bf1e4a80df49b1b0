"""What a policy and a decoder see of a run: facts about the canvas, nothing of the model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from attrs import field, frozen
from torch import Tensor

from freshkv.core.shift import rows_read_for, values_read_for

_EMPTY: Mapping[str, Tensor] = MappingProxyType({})


@frozen(kw_only=True, eq=False)
class StepView:
    """Read-only facts about sequences that stand at the same point of their run.

    Sequences of one batch may progress at different speed; those with the same ``step`` and ``step_in_block`` share a
    view, so that both are plain integers. All tensors are ``[batch, seq]`` over the whole canvas unless stated; a
    policy must not write to them (the core checks).
    """

    tokens: Tensor  #: long; the mask token where undecided
    is_masked: Tensor  #: bool; response positions that hold the mask token
    is_open: Tensor  #: bool; masked and still to be decided (a run that stops at EOS leaves what follows it)
    is_prompt: Tensor  #: bool; columns left of the response, padding included
    is_valid: Tensor  #: bool; False at left padding
    in_block: Tensor  #: bool; the active block of each sequence
    block_index: Tensor  #: long; number of the block of a position, -1 in the prompt
    block_length: int  #: positions
    gen_length: int  #: positions of the response
    step: int  #: forward passes that these sequences have been through
    step_in_block: int  #: forward passes since their active block opened
    dirty: Tensor  #: bool; the token changed since the row was last refreshed in every layer
    age: Tensor  #: long; steps since the row was last refreshed in every layer (1: in the last step)
    committed_at: Tensor  #: long; the step in which the token was committed, -1 if it was not
    confidence: Tensor  #: float32; the last known confidence, -inf where never predicted
    sequence: Tensor  #: long [batch]; which sequences of the run these are
    signals: Mapping[str, Tensor] = field(default=_EMPTY)  #: what the policy's ``needs`` asked for; zeros at first
    memory: Mapping[str, Tensor] = field(default=_EMPTY)  #: what the policy or decoder asked the core to remember
    _row_offset: int = field(default=0, alias="row_offset")  # how far before a position the row lies that predicts it

    @property
    def is_block_start(self) -> bool:
        """Whether the active block opens with this step."""
        return self.step_in_block == 0

    def rows_for(self, positions: Tensor) -> Tensor:
        """The rows, bool [batch, seq], that are refreshed to predict ``positions``, bool [batch, seq].

        All positions of a sequence mean all of its rows.
        """
        return rows_read_for(positions, self._row_offset)

    def to_rows(self, values: Tensor, fill: float) -> Tensor:
        """``values``, [batch, seq] by position, moved to the rows that predict those positions: [batch, seq] by row.

        What ``rows_for`` does for masks, for scores such as ``confidence``. A row that predicts nothing (the last one,
        where logits are shifted) gets ``fill``.
        """
        return values_read_for(values, self._row_offset, fill)

    @property
    def everything(self) -> Tensor:
        """bool [batch, seq], all True."""
        return torch.ones_like(self.is_masked)

    @property
    def nothing(self) -> Tensor:
        """bool [batch, seq], all False."""
        return torch.zeros_like(self.is_masked)

    @property
    def is_response(self) -> Tensor:
        """bool [batch, seq], the positions that are generated."""
        return ~self.is_prompt

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, seq)."""
        batch, seq = self.tokens.shape
        return batch, seq
