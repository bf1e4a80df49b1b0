"""Recompute only what was just decoded, what is decoded next, and a window around both."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import and_, ge, instance_of
from torch import Tensor

from freshkv import CachePolicy, Selection, StepView


@attrs.frozen
class DKVGreedy(CachePolicy):
    """dKV-Cache-Greedy (arXiv:2505.15781, section 3.3): the just decoded, the next, and a window around them.

    Which position comes next is only known after the step; the masked position of the active block with the highest
    last known confidence stands for it. The two first steps of a block and every ``refresh_every``-th one recompute
    everything. Exact when refresh_every = 1.
    """

    name = "dkv-greedy"
    paper = "dKV-Cache, arXiv:2505.15781, section 3.3"
    needs = frozenset({"confidence"})

    window: int = attrs.field(default=4, validator=and_(instance_of(int), ge(0)))  #: positions on either side
    refresh_every: int = attrs.field(default=2, validator=and_(instance_of(int), ge(1)))  #: steps

    def select(self, view: StepView) -> Selection:
        """Everything at intervals; in between a neighbourhood of the last and the next token."""
        if view.step_in_block <= 1 or view.step_in_block % self.refresh_every == 0:
            return Selection(predict=view.everything)
        candidates = view.is_masked & view.in_block
        likely = torch.where(candidates, view.confidence, -torch.inf)
        following = candidates & (likely == likely.amax(dim=1, keepdim=True))
        near = widen(view.dirty | following, self.window) & view.is_response
        return Selection(predict=near & candidates, refresh=near)


def widen(mask: Tensor, window: int) -> Tensor:
    """``mask``, bool [batch, seq], and the positions at most ``window`` away from it."""
    kernel = 2 * window + 1
    return torch.nn.functional.max_pool1d(mask.float()[:, None], kernel, stride=1, padding=window)[:, 0] > 0
