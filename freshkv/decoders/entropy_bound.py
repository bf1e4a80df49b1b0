"""Commit tokens while the error of taking them together stays bounded."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Prediction
from freshkv.core.ranking import descending_rank
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder


@frozen
class EntropyBoundDecoder(RankedDecoder):
    """EB-Sampler (arXiv:2505.24857, section 3): in order of confidence, the longest run whose sum H - max H
    stays within ``gamma``.

    H is the entropy of a position's distribution; the difference bounds the error of decoding the run jointly.
    """

    name = "entropy-bound"
    paper = "EB-Sampler, arXiv:2505.24857, section 3"

    gamma: float = field(default=0.1, converter=float, validator=ge(0.0))  #: nats

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """The run of the ranking whose bound holds; for one sequence alone, whatever the batch."""
        entropy = prediction.place(prediction.distribution.entropy, 0.0)
        rank = descending_rank(torch.where(prediction.positions, ranking, -torch.inf))
        ordered = torch.zeros_like(entropy).scatter(SEQ, rank, entropy)
        bound = ordered.cumsum(dim=SEQ) - ordered.cummax(dim=SEQ).values
        return prediction.positions & (bound <= self.gamma).gather(SEQ, rank)
