"""Token distributions of predicted positions, computed once and in float32."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

VOCABULARY = -1  #: the axis of token ids


class Distribution:
    """Distributions of n positions over the vocabulary, from filtered logits, float32 [n, vocabulary].

    Everything derived is computed when first asked for and kept. Treat all of it as read-only.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @cached_property
    def log_normaliser(self) -> Tensor:
        """float32 [n]: logsumexp of the logits."""
        return torch.logsumexp(self.logits, dim=VOCABULARY)

    @cached_property
    def probabilities(self) -> Tensor:
        """float32 [n, vocabulary]."""
        return torch.softmax(self.logits, dim=VOCABULARY)

    @cached_property
    def best(self) -> Tensor:
        """long [n]: the most probable token."""
        return self.logits.argmax(dim=VOCABULARY)

    @cached_property
    def entropy(self) -> Tensor:
        """float32 [n], in nats; tokens of probability 0 add nothing."""
        return torch.special.entr(self.probabilities).sum(dim=VOCABULARY)

    @cached_property
    def margin(self) -> Tensor:
        """float32 [n]: probability of the best token minus that of the second."""
        top = self.logits.topk(2, dim=VOCABULARY).values
        first, second = torch.exp(top - self.log_normaliser[:, None]).unbind(dim=VOCABULARY)
        return first - second

    def probability_of(self, tokens: Tensor) -> Tensor:
        """float32 [n]: the probability of one token, long [n], in each distribution."""
        chosen = self.logits.gather(VOCABULARY, tokens[:, None])[:, 0]
        return torch.exp(chosen - self.log_normaliser)

    def sample(self, uniform: Tensor) -> Tensor:
        """long [n]: tokens by inverse transform of ``uniform``, float [n] in [0, 1).

        One number a position, so that the draw does not depend on which other positions are predicted.
        """
        cumulative = self.probabilities.double().cumsum(dim=VOCABULARY)
        threshold = uniform[:, None].double() * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
        return index.clamp(max=self.logits.shape[VOCABULARY] - 1)
