"""Commit tokens whose distribution has come to rest."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import and_, ge, gt, instance_of, le
from torch import Tensor

from freshkv.core.decoder import Commit, Prediction
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder

_QUIET = "steps_below_kl_threshold"


@frozen
class KlassDecoder(RankedDecoder):
    """KLASS (arXiv:2511.05664, section 3): stable and certain tokens together, else the best one.

    A position is stable when KL(p_t || p_{t-1}) stayed below ``kl_threshold`` for ``kl_history`` steps.
    """

    name = "klass"
    paper = "KLASS, arXiv:2511.05664, section 3"
    needs = frozenset({"noise", "divergence"})

    threshold: float = field(default=0.9, converter=float, validator=and_(ge(0.0), le(1.0)))  #: raw confidence
    kl_threshold: float = field(default=0.01, converter=float, validator=gt(0.0))  #: nats
    kl_history: int = field(default=2, validator=and_(instance_of(int), ge(1)))  #: steps

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        """As ranked decoders do, and count for how many steps each position was at rest."""
        commit = super().decode(view, prediction)
        return Commit(commit.positions, commit.tokens, remember={_QUIET: self._quiet(view, prediction)})

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """Stable positions whose confidence reaches the threshold."""
        stable = self._quiet(view, prediction) >= self.kl_history
        return stable & (prediction.confidence >= self.threshold)

    def _quiet(self, view: StepView, prediction: Prediction) -> Tensor:
        """Steps in a row, long [batch, seq], in which the distribution hardly moved."""
        before = view.memory.get(_QUIET)
        before = torch.zeros_like(view.age) if before is None else before
        return torch.where(prediction.divergence < self.kl_threshold, before + 1, 0)
