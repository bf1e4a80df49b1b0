"""Refresh everything when a block opens, then only that block."""

from __future__ import annotations

from attrs import frozen

from freshkv.core.policy import CachePolicy
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


@frozen
class DualCache(CachePolicy):
    """Fast-dLLM's DualCache (arXiv:2505.22618, section 3.2). Exact when every block takes one step."""

    name = "dual"
    paper = "Fast-dLLM, arXiv:2505.22618, section 3.2"
    plans_ahead = True

    def select(self, view: StepView) -> Selection:
        """Reuse the prompt, the earlier blocks and the masks that follow."""
        return Selection(predict=view.everything if view.is_block_start else view.in_block)
