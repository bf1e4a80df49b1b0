"""Discount tokens that are frequent anyway, and prefer early positions."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import ge, gt
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Prediction
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder
from freshkv.decoders.token_frequency import read_frequencies

_NEVER_SEEN = 1e-10


@frozen
class PCSamplerDecoder(RankedDecoder):
    """PC-Sampler (arXiv:2508.13021, section 3): rank by -p log f, at most ``alpha``, times exp(-``decay`` i).

    p is the confidence of the proposed token, f its frequency in a corpus and i the position in the response. Without a
    table every token is as frequent as any other, which leaves the order of confidence.
    """

    name = "pc-sampler"
    paper = "PC-Sampler, arXiv:2508.13021, section 3"

    alpha: float = field(default=10.0, converter=float, validator=gt(0.0))  #: nats; largest calibrated confidence
    decay: float = field(default=0.0, converter=float, validator=ge(0.0))  #: per position
    #: a file written by ``freshkv.decoders.token_frequency``, or "tiny" for the bundled models' own
    frequencies: str | None = field(default=None)

    def rank(self, view: StepView, prediction: Prediction) -> Tensor:
        """Calibrated confidence, weighted by position (and by the certainty prior, if that is on)."""
        position = (view.is_response.cumsum(dim=SEQ) - 1).clamp(min=0)
        base = super().rank(view, prediction).masked_fill(~prediction.positions, 0.0)
        surprise = -self._frequency(prediction).clamp(min=_NEVER_SEEN).log()
        return (base * surprise).clamp(max=self.alpha) * torch.exp(-self.decay * position)

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """Nothing beyond ``tokens_per_step``."""
        return torch.zeros_like(prediction.positions)

    def _frequency(self, prediction: Prediction) -> Tensor:
        """Share of each proposed token in the corpus, float32 [batch, seq]."""
        vocabulary = prediction.logits.shape[1]
        if self.frequencies is None:
            return torch.full_like(prediction.confidence, 1.0 / vocabulary)
        table = read_frequencies(self.frequencies, vocabulary).to(prediction.tokens.device)
        return table[prediction.tokens]
