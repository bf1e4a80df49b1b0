"""Recompute the block, and ever fewer of its rows the deeper the layer."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import and_, ge, instance_of, le, lt
from torch import Tensor

from freshkv import LayerView, LayerwisePolicy, StepView, best

_share = and_(ge(0.0), le(1.0))
_interval = and_(instance_of(int), ge(1))


@attrs.frozen
class EarlySkipping(LayerwisePolicy):
    """ES-dLLM (arXiv:2603.10088): rows shrink with depth by importance. Exact when refresh_every = 1.

    Importance is ``alpha`` times the last known confidence plus 1 - ``alpha`` times how far the row's value has moved.
    At two depths the least important rows drop out; a row that is out stays out up to the last layer.
    """

    name = "es-dllm"
    paper = "ES-dLLM, arXiv:2603.10088"

    #: share of the rows that drops out at each of the two depths
    skip_ratio: float = attrs.field(default=0.5, converter=float, validator=and_(ge(0.0), lt(1.0)))
    first_skip: float = attrs.field(default=0.125, converter=float, validator=_share)  #: share of the layers below it
    second_skip: float = attrs.field(default=0.25, converter=float, validator=_share)  #: share of the layers below it
    alpha: float = attrs.field(default=0.5, converter=float, validator=_share)  #: weight of confidence against movement
    block_every: int = attrs.field(default=16, validator=_interval)  #: steps between refreshes of the whole block
    refresh_every: int = attrs.field(default=64, validator=_interval)  #: steps of a block between full refreshes

    def probe(self, view: StepView) -> Tensor | None:
        """The block's rows, in steps that choose among them by movement."""
        return self._of_block(view) if self._is_skipping(view) and self.alpha < 1 else None

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """Everything or the whole block when due; else those of the layer below that are still important."""
        if view.step_in_block % self.refresh_every == 0:
            return view.everything
        rows = self._of_block(view) if layer.layer == 0 else layer.below
        skips = self._skips(layer.layer, layer.layers)
        is_new = skips > (self._skips(layer.layer - 1, layer.layers) if layer.layer > 0 else 0)
        if not (is_new and self._is_skipping(view)):
            return rows
        return self._important(view, layer, rows, int(view.block_length * (1 - self.skip_ratio) ** skips))

    def _is_skipping(self, view: StepView) -> bool:
        return view.step_in_block % self.refresh_every != 0 and view.step_in_block % self.block_every != 0

    def _skips(self, layer: int, layers: int) -> int:
        return sum(layer >= depth * layers for depth in (self.first_skip, self.second_skip))

    @staticmethod
    def _of_block(view: StepView) -> Tensor:
        return view.rows_for(view.in_block) | view.dirty

    def _important(self, view: StepView, layer: LayerView, rows: Tensor, count: int) -> Tensor:
        """``count`` of ``rows``; what was just decided and what predicts the two surest masks come first."""
        undecided = view.is_open & view.in_block
        known = undecided & view.confidence.isfinite()
        confidence = torch.where(known, view.confidence, 0.0)
        score = self.alpha * confidence + (1 - self.alpha) * layer.movement.nan_to_num(nan=0.0)
        kept = rows & (view.dirty | view.rows_for(best(confidence, undecided, 2)))
        return kept | best(score, rows & ~kept, count - kept.sum(dim=1, keepdim=True))
