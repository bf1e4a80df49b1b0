"""How sure the model is of a token: the scores that decoders rank by.

Each maps to [0, 1], so that priors may multiply it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from freshkv.core.distribution import Distribution

ScoreName = Literal["confidence", "margin", "entropy", "random"]

#: (distribution [n, vocabulary], proposed tokens [n], noise [n]) to scores, float32 [n]
Score = Callable[[Distribution, Tensor, Tensor], Tensor]


def confidence(distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
    """The probability of the proposed token."""
    return distribution.probability_of(tokens)


def margin(distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
    """The probability of the best token minus that of the second."""
    return distribution.margin


def entropy(distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
    """exp(-entropy): the order of negative entropy, but never negative."""
    return torch.exp(-distribution.entropy)


def random(distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
    """A uniform random number: the order of decoding is random, the tokens are not."""
    return noise


SCORES: dict[ScoreName, Score] = {"confidence": confidence, "margin": margin, "entropy": entropy, "random": random}
