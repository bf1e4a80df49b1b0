"""Which tokens of a target are masked in a Monte Carlo sample, and how much the sample weighs."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.evaluation.model_args import Masking

#: smallest masking rate, as in Dream's evaluation: a weight is its inverse, and without a bound its variance has none
LEAST_RATE = 1e-3


@frozen(eq=False)
class Masks:
    """Samples of a target. The sum over masked tokens of log-probabilities, times ``weight``, is one estimate."""

    is_masked: Tensor  #: bool [samples, target]
    weight: Tensor  #: float64 [samples]


def draw_masks(length: int, samples: int, masking: Masking, generator: torch.Generator) -> Masks:
    """Masks for a target of ``length`` tokens.

    ``count`` (LLaDA, arXiv:2502.09992, equation 6): a number of tokens from 1 to ``length``, then that many of them;
    the weight is ``length`` over the number. A target of one token needs no more than one sample, which is exact.
    ``rate`` (Dream): a rate t from 0 to 1, each token masked with probability t; the weight is 1 / t. Numbers
    and rates are spread evenly over the samples, from a random start, which leaves each of them uniform.
    """
    return _by_count(length, samples, generator) if masking == "count" else _by_rate(length, samples, generator)


def _by_count(length: int, samples: int, generator: torch.Generator) -> Masks:
    samples = 1 if length == 1 else samples
    start = int(torch.randint(length, (), generator=generator))
    steps = torch.arange(samples) * length // samples  # long [samples]
    counts = (start + steps) % length + 1
    order = torch.rand((samples, length), generator=generator).argsort(dim=SEQ)  # long [samples, target]
    ranks = order.argsort(dim=SEQ)
    return Masks(ranks < counts[:, None], length / counts.double())


def _by_rate(length: int, samples: int, generator: torch.Generator) -> Masks:
    start = torch.rand((), generator=generator, dtype=torch.float64)
    spread = (start + torch.arange(samples) / samples) % 1.0
    rate = LEAST_RATE + (1 - LEAST_RATE) * spread  # float64 [samples]
    drawn = torch.rand((samples, length), generator=generator, dtype=torch.float64)
    return Masks(drawn < rate[:, None], 1 / rate)
