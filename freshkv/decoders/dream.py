"""The samplers that Dream was published with."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import field, frozen
from attrs.validators import and_, ge, gt, in_, instance_of, lt, optional
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Commit, Decoder, Prediction
from freshkv.core.distribution import Distribution
from freshkv.core.ranking import best
from freshkv.core.view import StepView
from freshkv.decoders.scoring import SCORES, ScoreName

Algorithm = Literal["origin", "maskgit_plus", "topk_margin", "entropy"]

_SCORE_OF: dict[Algorithm, ScoreName] = {
    "origin": "random",
    "maskgit_plus": "confidence",
    "topk_margin": "margin",
    "entropy": "entropy",
}


@frozen
class DreamDecoder(Decoder):
    """Dream's timestep schedule with its four algorithms (arXiv:2508.15487, and the model's own generation code).

    Time runs from 1 to ``epsilon`` in ``steps`` equal parts. Between times t and s, ``origin`` commits each position
    with probability 1 - s/t, the others the ⌊masks (1 - s/t)⌋ best by their score. Where that is none, the best is
    committed all the same. With blocks, each block runs through all of time.
    """

    name = "dream"
    paper = "Dream 7B, arXiv:2508.15487"
    needs = frozenset({"noise"})

    algorithm: Algorithm = field(default="maskgit_plus", validator=in_(tuple(_SCORE_OF)))
    #: forward passes in all, spread evenly over blocks; None: one a position
    steps: int | None = field(default=None, validator=optional(and_(instance_of(int), ge(1))))
    #: temperature at which positions are drawn by their score; 0: the best ones
    alg_temp: float = field(default=0.0, converter=float, validator=ge(0.0))
    epsilon: float = field(default=0.001, converter=float, validator=and_(gt(0.0), lt(1.0)))  #: the last time

    def score_tokens(self, distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
        """Confidence [n] by the algorithm's score."""
        return SCORES[_SCORE_OF[self.algorithm]](distribution, tokens, noise)

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        """What the schedule allows in this step, at least one position."""
        masks = (view.is_open & view.in_block).sum(dim=SEQ, keepdim=True)
        share = self._share(view)
        if self.algorithm == "origin":
            lucky = prediction.positions & (prediction.noise < share)
            first = best(-prediction.noise, prediction.positions, 1)
            return Commit(torch.where(lucky.any(dim=SEQ, keepdim=True), lucky, first), prediction.tokens)
        count = (masks * share).floor().long().clamp(min=1)
        return Commit(best(self._ranking(prediction), prediction.positions, count), prediction.tokens)

    def _share(self, view: StepView) -> float:
        """1 - s/t of this step; 1 in the last of its block."""
        blocks = -(-view.gen_length // view.block_length)  # aligned or not
        steps = view.block_length if self.steps is None else max(self.steps // blocks, 1)
        if view.step_in_block >= steps - 1:
            return 1.0
        part = (1.0 - self.epsilon) / steps
        time = 1.0 - part * view.step_in_block
        return part / time

    def _ranking(self, prediction: Prediction) -> Tensor:
        if self.alg_temp == 0.0:
            return prediction.confidence
        score = prediction.confidence
        if self.algorithm == "entropy":
            score = score.log()  # back to negative entropy, whose differences the temperature is meant for
        # the largest of Gumbel-shifted scores are a draw without replacement
        noise = prediction.noise.clamp(min=torch.finfo(torch.float32).tiny, max=1 - 1e-7)
        shifted = score / self.alg_temp - (-noise.log()).log()
        return torch.where(prediction.positions, shifted, 0.0)
