"""The base of decoders that rank positions: a score, a prior and a rule compose."""

from __future__ import annotations

from abc import abstractmethod

from attrs import field, frozen
from attrs.validators import and_, ge, in_, instance_of, optional
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Commit, Decoder, Prediction
from freshkv.core.density import certainty_density
from freshkv.core.distribution import Distribution
from freshkv.core.ranking import best
from freshkv.core.view import StepView
from freshkv.decoders.schedule import tokens_of_step
from freshkv.decoders.scoring import SCORES, ScoreName


@frozen
class RankedDecoder(Decoder):
    """Commits what ``accept`` allows, and the best ``tokens_per_step`` in any case.

    The certainty prior (d2Cache, arXiv:2509.23094, section 3.2) changes the ranking; thresholds stay on the raw
    confidence.
    """

    needs = frozenset({"noise"})

    tokens_per_step: int = field(default=1, validator=and_(instance_of(int), ge(1)), kw_only=True)  #: at least so many
    #: forward passes in all, spread evenly over blocks and steps as LLaDA does; instead of ``tokens_per_step``
    steps: int | None = field(default=None, validator=optional(and_(instance_of(int), ge(1))), kw_only=True)
    score: ScoreName = field(default="confidence", validator=in_(tuple(SCORES)), kw_only=True)
    #: positions; width of the certainty prior, 0: off
    prior_sigma: float = field(default=0.0, converter=float, validator=ge(0.0), kw_only=True)

    def score_tokens(self, distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
        """Confidence [n] by ``score``."""
        return SCORES[self.score](distribution, tokens, noise)

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        """All that ``accept`` allows; if that is too little, the best of the ranking besides."""
        ranking = self.rank(view, prediction)
        accepted = self.accept(view, prediction, ranking) & prediction.positions
        least = self.tokens_per_step if self.steps is None else tokens_of_step(view, self.steps)
        missing = (least - accepted.sum(dim=SEQ, keepdim=True)).clamp(min=0)
        return Commit(accepted | best(ranking, prediction.positions & ~accepted, missing), prediction.tokens)

    def rank(self, view: StepView, prediction: Prediction) -> Tensor:
        """What positions are ordered by, float32 [batch, seq], finite where predicted."""
        if self.prior_sigma == 0.0:
            return prediction.confidence
        density = certainty_density(view.is_masked, view.is_prompt, self.prior_sigma)
        return prediction.confidence.masked_fill(~prediction.positions, 0.0) * density

    @abstractmethod
    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """Positions, bool [batch, seq], that are committed whatever their number."""
