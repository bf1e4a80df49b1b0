"""Refresh everything in every step: the baseline."""

from __future__ import annotations

from attrs import frozen

from freshkv.core.policy import CachePolicy
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


@frozen
class NoCache(CachePolicy):
    """No caching: the truth that every other policy is compared with. Always exact."""

    name = "none"
    plans_ahead = True

    def select(self, view: StepView) -> Selection:
        """Everything."""
        return Selection(predict=view.everything)
