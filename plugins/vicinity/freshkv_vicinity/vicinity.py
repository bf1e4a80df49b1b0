"""Recompute the block and the positions around it."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import and_, ge, instance_of

from freshkv import CachePolicy, Selection, StepView

_count = and_(instance_of(int), ge(0))


@attrs.frozen
class VicinityRefresh(CachePolicy):
    """Vicinity refresh of dInfer (arXiv:2510.08666). Exact when ``warmup`` covers the run, or the window the canvas.

    Everything is refreshed in the first ``warmup`` steps of a run and whenever a block opens; in between the block and
    the positions at most ``before`` to its left and ``after`` to its right.
    """

    name = "vicinity"
    paper = "dInfer, arXiv:2510.08666"
    tuned_for = "LLaDA-MoE, as its benchmarks are run"
    plans_ahead = True

    before: int = attrs.field(default=16, validator=_count)  #: positions left of the block
    after: int = attrs.field(default=16, validator=_count)  #: positions right of the block
    warmup: int = attrs.field(default=4, validator=_count)  #: steps of the run

    def select(self, view: StepView) -> Selection:
        """Everything when due, and else the neighbourhood of the block."""
        if view.step < self.warmup or view.is_block_start:
            return Selection(predict=view.everything)
        position = torch.arange(view.shape[1], device=view.tokens.device)
        first = position.masked_fill(~view.in_block, view.shape[1]).amin(dim=1, keepdim=True)
        last = position.masked_fill(~view.in_block, -1).amax(dim=1, keepdim=True)
        near = (position >= first - self.before) & (position <= last + self.after) & view.is_valid
        return Selection(predict=view.in_block, refresh=near)
