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
    """Leftmost first: the run of positions up to the first that is not certain enough.

    Without a threshold every position is certain enough, and a step takes the whole block; a threshold of 1 takes
    ``tokens_per_step`` at a time, as an autoregressive model does.
    """

    name = "autoregressive"
    paper = "the order of autoregressive models"

    threshold: float | None = field(default=None, validator=optional(and_(ge(0.0), le(1.0))))  #: raw confidence

    def rank(self, view: StepView, prediction: Prediction) -> Tensor:
        """The lower position first."""
        return -prediction.positions.cumsum(dim=SEQ).float()

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """The predicted positions from the leftmost on, until one is undecided and not certain enough."""
        certain = prediction.positions
        if self.threshold is not None:
            certain = certain & (prediction.confidence >= self.threshold)
        begun = prediction.positions.cummax(dim=SEQ).values
        failed = begun & view.in_block & view.is_open & ~certain
        return certain & (failed.cumsum(dim=SEQ) == 0)
