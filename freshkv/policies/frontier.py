"""Refresh what has just changed, the masks that are surest, and those that have waited longest."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import and_, ge, instance_of, optional

from freshkv.core.policy import CachePolicy
from freshkv.core.ranking import best
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


@frozen
class Frontier(CachePolicy):
    """Found by looking at drift (docs/study.md), not in a paper. Exact when refresh_every = 1.

    Inside the active block alone: rows whose token has changed, as many masks as a decoder is likely to take, and some
    others in turn, so that no mask of the block grows old. The whole block is refreshed when it opens; rows of the
    prompt and of decided blocks stay as they are.
    """

    name = "frontier"
    tuned_for = "tiny-llada and tiny-dream on sums, sudoku and weave"
    budget_field = "surest"
    plans_ahead = True

    surest: int = field(default=2, validator=and_(instance_of(int), ge(1)))  #: masks of the highest last confidence
    stalest: int = field(default=2, validator=and_(instance_of(int), ge(0)))  #: other masks, the oldest first
    #: steps between refreshes of everything; none: the first step only
    refresh_every: int | None = field(default=None, validator=optional(and_(instance_of(int), ge(1))))

    def select(self, view: StepView) -> Selection:
        """What is due; all of the block when it opens."""
        if view.step == 0 or (self.refresh_every is not None and view.step % self.refresh_every == 0):
            return Selection(predict=view.everything)
        if view.is_block_start:
            return Selection(predict=view.in_block, refresh=view.dirty)
        due = view.is_open & view.in_block
        sure = best(view.confidence, due & view.confidence.isfinite(), self.surest)
        stale = best(view.age.float(), due & ~sure, self.stalest)
        return Selection(predict=sure | stale, refresh=view.dirty)
