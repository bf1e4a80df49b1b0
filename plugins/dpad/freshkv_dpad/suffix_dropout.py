"""Drop far masks: the farther behind the block, the fewer are kept, and none beyond a window."""

from __future__ import annotations

import math
from typing import Literal

import attrs
import torch
from attrs.validators import and_, ge, in_, instance_of
from torch import Tensor

from freshkv import CachePolicy, Selection, StepView


@attrs.frozen
class DPad(CachePolicy):
    """DPad (arXiv:2508.14148). Exact when cache = none and nothing is dropped: k = 0, a >= 2.51, a wide window.

    Of the ``window`` positions behind the active block, the share that is kept at distance d is a Gaussian's,
    a * phi(k * d / window). The rest, and all beyond the window, are not attended to, and after the first step not
    computed. Which ones those are depends on the distance alone.
    """

    name = "dpad"
    paper = "DPad, arXiv:2508.14148"
    tuned_for = "LLaDA-8B-Instruct on gsm8k and math"
    budget_field = "window"
    hides_keys = True
    plans_ahead = True

    window: int = attrs.field(default=256, validator=and_(instance_of(int), ge(1)))  #: positions behind the block
    k: float = attrs.field(default=4.0, converter=float, validator=ge(0.0))  #: standard deviations in the window
    a: float = attrs.field(default=2.0, converter=float, validator=ge(0.0))  #: factor on the density
    #: what is reused within a block: nothing, what lies before it, or all but the block
    cache: Literal["none", "prefix", "dual"] = attrs.field(default="prefix", validator=in_(("none", "prefix", "dual")))

    def select(self, view: StepView) -> Selection:
        """Refresh what is kept, as far as ``cache`` says; nothing else is visible."""
        kept = self._kept(view)
        if view.is_block_start or self.cache == "none":
            rows = kept
        elif self.cache == "prefix":
            rows = kept & view.in_block.cummax(dim=1).values
        else:
            rows = view.nothing
        return Selection(predict=view.in_block, refresh=rows, visible=kept)

    def _kept(self, view: StepView) -> Tensor:
        """All up to the end of the active block, and what the dropout leaves of the rest."""
        position = torch.arange(view.shape[1], device=view.tokens.device)
        end = (position * view.in_block).amax(dim=1, keepdim=True) + 1
        distance = position - end
        within = (distance >= 0) & (distance < self.window)
        survives = survivors(self.window, self.k, self.a).to(position.device, non_blocking=True)
        return (distance < 0) | (within & survives[distance.clamp(0, self.window - 1)])


def survivors(window: int, k: float, a: float) -> Tensor:
    """bool [window]: the distances at which the expected number of kept positions rounds to a new one."""
    deviation = k * torch.arange(window, dtype=torch.float64) / window
    share = (a / math.sqrt(2 * math.pi) * torch.exp(-(deviation**2) / 2)).clamp(max=1.0)
    number = (share.cumsum(dim=0) + 0.5).floor()
    return number.diff(prepend=number.new_zeros(1)) > 0
