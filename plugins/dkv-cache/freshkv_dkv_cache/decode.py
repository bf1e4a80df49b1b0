"""Recompute all that is undecided, and a decoded token once more in the step after."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, instance_of

from freshkv import CachePolicy, Selection, StepView


@attrs.frozen
class DKVDecode(CachePolicy):
    """dKV-Cache-Decode (arXiv:2505.15781, section 3.2). Exact when refresh_every = 1.

    The keys and values of a token settle only after it is decoded, so it is cached one step late. The two first steps
    of a block and every ``refresh_every``-th one recompute everything.
    """

    name = "dkv-decode"
    paper = "dKV-Cache, arXiv:2505.15781, section 3.2"
    tuned_for = "LLaDA-8B-Instruct, as its published code is run"
    budget_field = "refresh_every"
    plans_ahead = True

    refresh_every: int = attrs.field(default=8, validator=and_(instance_of(int), ge(1)))  #: steps

    def select(self, view: StepView) -> Selection:
        """Everything at intervals; in between what is masked or was decoded in the last step."""
        if view.step_in_block <= 1 or view.step_in_block % self.refresh_every == 0:
            return Selection(predict=view.everything)
        return Selection(predict=view.is_masked & view.in_block, refresh=view.is_masked | view.dirty)
