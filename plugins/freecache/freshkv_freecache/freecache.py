"""Freeze what is decided: the prompt after the first step, a block once it is clean."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, instance_of

from freshkv import CachePolicy, Selection, StepView


@attrs.frozen
class FreeCache(CachePolicy):
    """FreeCache (arXiv:2505.21467). Exact when the run takes one step, or with refresh_every = 1.

    The active block and all that follows it are recomputed in every step. When a block opens, the one before it, now
    clean, is recomputed one last time; from then on its keys and values are frozen, as are those of the prompt.
    """

    name = "freecache"
    paper = "FreeCache, arXiv:2505.21467"
    plans_ahead = True

    #: steps between full refreshes; 0, as in the paper: none after the first step
    refresh_every: int = attrs.field(default=0, validator=and_(instance_of(int), ge(0)))

    def select(self, view: StepView) -> Selection:
        """From the active block on, and the block before it when it has just become clean."""
        if self.refresh_every > 0 and view.step % self.refresh_every == 0:
            return Selection(predict=view.everything)
        from_block_on = view.in_block.cummax(dim=1).values
        settling = view.dirty
        if view.is_block_start:
            active = view.block_index.masked_fill(~view.in_block, -1).amax(dim=1, keepdim=True)
            settling = settling | (view.is_response & (view.block_index == active - 1))
        return Selection(predict=from_block_on, refresh=settling)
