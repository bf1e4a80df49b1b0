"""Recompute only what was just decoded, what is decoded next, and the masks around it."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import and_, ge, instance_of

from freshkv import CachePolicy, Selection, StepView, best


@attrs.frozen
class DKVGreedy(CachePolicy):
    """dKV-Cache-Greedy (arXiv:2505.15781, section 3.3): the just decoded, the next, and the masks nearest to it.

    Which position comes next is only known after the step; the masked position of the active block with the highest
    last known confidence stands for it. The first step of a block and every ``refresh_every``-th one after it recompute
    everything. Exact when refresh_every = 1.
    """

    name = "dkv-greedy"
    paper = "dKV-Cache, arXiv:2505.15781, section 3.3"
    needs = frozenset({"confidence"})
    tuned_for = "LLaDA-8B-Instruct, as its published code is run"
    budget_field = "window"
    plans_ahead = True

    window: int = attrs.field(default=4, validator=and_(instance_of(int), ge(0)))  #: masked positions near the next
    refresh_every: int = attrs.field(default=2, validator=and_(instance_of(int), ge(1)))  #: steps

    def select(self, view: StepView) -> Selection:
        """Everything at intervals; in between the last token, the next, and its neighbours."""
        if view.step_in_block % self.refresh_every == 0:
            return Selection(predict=view.everything)
        candidates = view.is_masked & view.in_block
        following = best(view.confidence, candidates, 1)
        position = torch.arange(view.shape[1], device=view.tokens.device)
        distance = (position - following.long().argmax(dim=1, keepdim=True)).abs()
        near = following | best(-distance.float(), view.is_masked & ~following, self.window)
        return Selection(predict=near & candidates, refresh=near | view.dirty)
