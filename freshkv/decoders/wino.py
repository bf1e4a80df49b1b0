"""Commit boldly, verify what was committed, and take back what does not hold."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import and_, ge, le
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Commit, Prediction
from freshkv.core.ranking import best
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder

# the bounds of the authors' implementation on how much one step drafts
_SHARE, _FEWEST, _MOST = 0.7, 5, 20


@frozen
class WinoDecoder(RankedDecoder):
    """WINO (arXiv:2507.18578, section 3): draft widely, verify through a shadow block, remask what falls short.

    A step drafts every position whose confidence reaches ``wide_in``, but at most 70% of the block's masks (bounded to
    5 to 20), and remasks decided positions of the block whose verified probability is below ``narrow_out``: the least
    certain, and ``tokens_per_step`` fewer than it drafted, so that the block always gains.
    """

    name = "wino"
    paper = "WINO, arXiv:2507.18578, section 3"
    revocable = True

    wide_in: float = field(default=0.6, converter=float, validator=and_(ge(0.0), le(1.0)))  #: raw confidence
    narrow_out: float = field(default=0.9, converter=float, validator=and_(ge(0.0), le(1.0)))  #: verified probability

    def verify(self, view: StepView) -> Tensor:
        """The active block, once anything of it is decided."""
        begun = (view.in_block & ~view.is_masked).any(dim=SEQ, keepdim=True)
        return view.in_block & begun

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """Positions certain enough for a draft, the best of them if there are too many."""
        wide = prediction.positions & (prediction.confidence >= self.wide_in)
        masks = (view.is_masked & view.in_block).sum(dim=SEQ, keepdim=True)
        most = (masks * _SHARE).int().clamp(_FEWEST, _MOST).clamp(min=self.tokens_per_step)
        return best(ranking, wide, most)

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        """The draft, and what verification takes back."""
        draft = super().decode(view, prediction)
        doubtful = prediction.verified < self.narrow_out  # NaN, where nothing was verified, is not
        drafted = draft.positions.sum(dim=SEQ, keepdim=True)
        most = (drafted - self.tokens_per_step).clamp(min=0)
        doubt = -prediction.verified.nan_to_num(nan=torch.inf)
        return Commit(draft.positions, draft.tokens, remask=best(doubt, doubtful, most))
