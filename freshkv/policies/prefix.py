"""Refresh everything when a block opens, then that block and all that follows it."""

from __future__ import annotations

from attrs import frozen

from freshkv.core.policy import CachePolicy
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


@frozen
class PrefixCache(CachePolicy):
    """Fast-dLLM's prefix cache (arXiv:2505.22618, section 3.2). Exact when every block takes one step."""

    name = "prefix"
    paper = "Fast-dLLM, arXiv:2505.22618, section 3.2"
    plans_ahead = True

    def select(self, view: StepView) -> Selection:
        """Reuse only what lies before the active block."""
        if view.is_block_start:
            return Selection(predict=view.everything)
        from_block_on = view.in_block.cummax(dim=1).values
        return Selection(predict=from_block_on)
