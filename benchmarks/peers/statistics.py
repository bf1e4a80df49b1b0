"""Time per step from steps of several kinds, and ratios of two implementations, with bootstrap intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

Samples = dict[str, NDArray[np.float64]]  #: kind to seconds


@frozen
class Interval:
    """An estimate with the middle 95% of its bootstrap."""

    value: float
    low: float
    high: float


def samples_by_kind(runs: Sequence[Sequence[float]], kinds: Sequence[str], skip: int = 1) -> Samples:
    """Seconds of each kind of step, all runs together; the first ``skip`` steps of the first run warm up.

    A kind of which nothing would be left keeps its warm-up.
    """
    found: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    for number, run in enumerate(runs):
        for step, seconds in enumerate(run):
            cold = number == 0 and step < skip
            (warm if cold else found).setdefault(kinds[step], []).append(seconds)
    return {kind: np.array(found.get(kind, warm.get(kind, []))) for kind in {*found, *warm}}


def mean_step(samples: Samples, kinds: Sequence[str]) -> float:
    """Seconds of a step of a whole run: the median of each kind, as often as a run has it. NaN if one is missing."""
    counts = Counter(kinds)
    if not counts.keys() <= samples.keys():
        return float("nan")
    return sum(float(np.median(samples[kind])) * count for kind, count in counts.items()) / len(kinds)


def _resampled(samples: Samples, generator: np.random.Generator) -> Samples:
    return {kind: generator.choice(values, len(values)) for kind, values in samples.items()}


def step_interval(samples: Samples, kinds: Sequence[str], draws: int = 400, seed: int = 0) -> Interval:
    """``mean_step`` with its interval."""
    generator = np.random.default_rng(seed)
    drawn = [mean_step(_resampled(samples, generator), kinds) for _ in range(draws)]
    return Interval(mean_step(samples, kinds), *(float(q) for q in np.quantile(drawn, (0.025, 0.975))))


def ratio_interval(slow: Samples, fast: Samples, kinds: Sequence[str], draws: int = 400, seed: int = 0) -> Interval:
    """How many times longer a step of ``slow`` takes than one of ``fast``."""
    generator = np.random.default_rng(seed)
    drawn = [
        mean_step(_resampled(slow, generator), kinds) / mean_step(_resampled(fast, generator), kinds)
        for _ in range(draws)
    ]
    value = mean_step(slow, kinds) / mean_step(fast, kinds)
    return Interval(value, *(float(q) for q in np.quantile(drawn, (0.025, 0.975))))
