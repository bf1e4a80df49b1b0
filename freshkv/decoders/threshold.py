"""Commit every token that is certain enough."""

from __future__ import annotations

from attrs import field, frozen
from attrs.validators import and_, ge, le
from torch import Tensor

from freshkv.core.decoder import Prediction
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder


@frozen
class ThresholdDecoder(RankedDecoder):
    """Fast-dLLM's confidence-aware parallel decoding (arXiv:2505.22618, section 3.3)."""

    name = "threshold"
    paper = "Fast-dLLM, arXiv:2505.22618, section 3.3"

    threshold: float = field(default=0.9, converter=float, validator=and_(ge(0.0), le(1.0)))  #: raw confidence

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """All positions whose confidence reaches the threshold."""
        return prediction.confidence >= self.threshold
