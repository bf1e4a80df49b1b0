"""Recompute the block, and ever fewer of its rows the deeper the layer."""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from attrs.validators import and_, ge, in_, instance_of, le, lt
from torch import Tensor

from freshkv import LayerView, LayerwisePolicy, StepView, best

_share = and_(ge(0.0), le(1.0))
_interval = and_(instance_of(int), ge(1))


@attrs.frozen
class EarlySkipping(LayerwisePolicy):
    """ES-dLLM (arXiv:2603.10088): rows shrink with depth by importance. Exact when refresh_every = 1.

    Importance is ``alpha`` times the last known confidence plus 1 - ``alpha`` times how far the row has moved. At two
    depths the least important rows drop out; a row that is out stays out up to the last layer, and what it predicts is
    not decided in this step.
    """

    name = "es-dllm"
    paper = "ES-dLLM, arXiv:2603.10088"
    tuned_for = "LLaDA-8B-Instruct on gsm8k"
    budget_field = "skip_ratio"
    predicts = "refreshed"
    probe_stores = False

    #: share of the rows that drops out at each of the two depths
    skip_ratio: float = attrs.field(default=0.5, converter=float, validator=and_(ge(0.0), lt(1.0)))
    first_skip: float = attrs.field(default=0.125, converter=float, validator=_share)  #: share of the layers below it
    second_skip: float = attrs.field(default=0.25, converter=float, validator=_share)  #: share of the layers below it
    alpha: float = attrs.field(default=0.5, converter=float, validator=_share)  #: weight of confidence against movement
    #: what moves: the hidden states that leave the layer at that depth, or the values that it computes
    moved: Literal["hidden_states", "values"] = attrs.field(
        default="hidden_states", validator=in_(("hidden_states", "values"))
    )
    block_every: int = attrs.field(default=16, validator=_interval)  #: steps between refreshes of the whole block
    refresh_every: int = attrs.field(default=64, validator=_interval)  #: steps between full refreshes

    @property
    def probes(self) -> Literal["hidden_states", "values"]:
        """What movement is of."""
        return self.moved

    def probe_layer(self, view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
        """The rows that are left, where some of them drop out."""
        if self.alpha == 1 or not self._is_skip(layer, layers):
            return None
        rows = self._of_block(view) if layer == 0 else below
        return rows & ~self._is_whole(view)

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """Everything or the whole block when due; else those of the layer below that are still important."""
        if layer.layer == 0:
            rows = torch.where(self._is_due(view, self.refresh_every), view.everything, self._of_block(view))
        else:
            rows = layer.below
        if not self._is_skip(layer.layer, layer.layers):
            return rows
        share = (1 - self.skip_ratio) ** self._skips(layer.layer, layer.layers)
        return torch.where(self._is_whole(view), rows, self._important(view, layer, rows, share))

    def _is_due(self, view: StepView, interval: int) -> Tensor:
        """bool [batch, 1]. A block counts as many steps as it has positions, however few it takes."""
        block = view.block_index.masked_fill(~view.in_block, -1).amax(dim=1, keepdim=True)
        return (block * view.block_length + view.step_in_block) % interval == 0

    def _is_whole(self, view: StepView) -> Tensor:
        """bool [batch, 1]: no row drops out in this step."""
        return self._is_due(view, self.refresh_every) | self._is_due(view, self.block_every)

    def _skips(self, layer: int, layers: int) -> int:
        """How often rows have dropped out when a layer begins. Hidden states are looked at where they leave a layer."""
        reached = layer - 1 if self.moved == "hidden_states" else layer
        return sum(reached >= depth * layers for depth in (self.first_skip, self.second_skip))

    def _is_skip(self, layer: int, layers: int) -> bool:
        return self._skips(layer, layers) > (self._skips(layer - 1, layers) if layer > 0 else 0)

    @staticmethod
    def _of_block(view: StepView) -> Tensor:
        return view.rows_for(view.in_block) | view.dirty

    def _important(self, view: StepView, layer: LayerView, rows: Tensor, share: float) -> Tensor:
        """``share`` of a block's rows. The leftmost mask, the two surest and what was just decided come first."""
        undecided = view.is_open & view.in_block
        known = undecided & view.confidence.isfinite()
        confidence = torch.where(known, view.confidence, 0.0)
        movement = layer.movement.nan_to_num(nan=0.0)
        movement = movement / movement.amax(dim=1, keepdim=True).clamp(min=1.0)
        score = self.alpha * view.to_rows(confidence, 0.0) + (1 - self.alpha) * movement
        sure = best(confidence, undecided, 2) | (undecided & (undecided.long().cumsum(dim=1) == 1))
        kept = rows & (view.dirty | view.rows_for(sure))
        count = int(view.block_length * share)
        return kept | best(score, rows & ~kept, count - kept.sum(dim=1, keepdim=True))
