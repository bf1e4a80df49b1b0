"""Commit from left to right."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import and_, ge, le, optional
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Prediction
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder


@frozen
class AutoregressiveDecoder(RankedDecoder):
    """Leftmost first: ``tokens_per_step`` of them, and with a threshold all whose confidence reaches it."""

    name = "autoregressive"
    paper = "the order of autoregressive models"

    threshold: float | None = field(default=None, validator=optional(and_(ge(0.0), le(1.0))))  #: raw confidence

    def rank(self, view: StepView, prediction: Prediction) -> Tensor:
        """The lower position first."""
        return -prediction.positions.cumsum(dim=SEQ).float()

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """All positions whose confidence reaches the threshold."""
        if self.threshold is None:
            return prediction.positions & False
        return prediction.confidence >= self.threshold
