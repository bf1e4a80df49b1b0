"""Commit as many tokens as their joint certainty allows."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Prediction
from freshkv.core.ranking import descending_rank
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder


@frozen
class FactorDecoder(RankedDecoder):
    """Fast-dLLM's factor rule (arXiv:2505.22618, section 3.3): the largest n with (n + 1)(1 - c_n) < ``factor``.

    c_n is the n-th highest raw confidence of the sequence.
    """

    name = "factor"
    paper = "Fast-dLLM, arXiv:2505.22618, section 3.3"

    factor: float = field(default=1.0, converter=float, validator=gt(0.0))

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """The n most certain positions."""
        confidence = torch.where(prediction.positions, prediction.confidence, -torch.inf)
        rank = descending_rank(confidence)
        passes = prediction.positions & ((rank + 2) * (1 - confidence) < self.factor)
        largest = torch.where(passes, rank, -1).amax(dim=SEQ, keepdim=True)
        return prediction.positions & (rank <= largest)
