"""Intervals and tests for paired comparisons. What scipy has is taken from it; importing that takes a second."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from attrs import frozen

CONFIDENCE = 0.95  #: of every interval
SIGNIFICANT = 1 - CONFIDENCE  #: a corrected p-value below this is called significant
POWER = 0.8  #: with which a difference is to be found, where the problems needed are counted

Interval = tuple[float, float]


@frozen(kw_only=True)
class PairedDifference:
    """How two entries differ on the same problems."""

    pairs: int  #: problems that both decoded
    both: int  #: of them, solved by both
    gained: int  #: of them, solved by the first alone
    lost: int  #: of them, solved by the second alone
    interval: Interval  #: of the difference, 95 %; Tango's score interval
    p_value: float  #: exact McNemar test, two-sided; not corrected

    @property
    def shares(self) -> tuple[float, float]:
        """Share of the problems that the first solves, and the second."""
        return (self.both + self.gained) / self.pairs, (self.both + self.lost) / self.pairs

    @property
    def difference(self) -> float:
        """Share solved by the first minus share solved by the second."""
        return (self.gained - self.lost) / self.pairs

    @property
    def discordant_rate(self) -> float:
        """Share of problems that only one of the two solves, estimated with one added to each side (never 0)."""
        return (self.gained + self.lost + 1) / (self.pairs + 2)


def compare_pairs(own: Sequence[bool], other: Sequence[bool]) -> PairedDifference:
    """What was solved by one entry and by another, problem by problem; at least one problem."""
    pairs = list(zip(own, other, strict=True))
    gained = sum(mine and not theirs for mine, theirs in pairs)
    lost = sum(theirs and not mine for mine, theirs in pairs)
    return PairedDifference(
        pairs=len(pairs),
        both=sum(mine and theirs for mine, theirs in pairs),
        gained=gained,
        lost=lost,
        interval=difference_interval(gained, lost, len(pairs)),
        p_value=mcnemar(gained, lost),
    )


def mcnemar(gained: int, lost: int) -> float:
    """The exact McNemar test: if both were equally good, a problem that only one solves would be a fair coin."""
    from scipy.stats import binomtest  # a second to import, and only summaries need it

    return 1.0 if gained + lost == 0 else float(binomtest(lost, gained + lost).pvalue)


def difference_interval(gained: int, lost: int, pairs: int) -> Interval:
    """95 % interval of (gained - lost) / pairs: Tango's score interval (Statistics in Medicine 17, 1998).

    scipy has no interval for a paired difference of shares that holds where nothing was lost, as a bootstrap does not.
    """
    return _lower_limit(gained, lost, pairs), -_lower_limit(lost, gained, pairs)


def _lower_limit(gained: int, lost: int, pairs: int) -> float:
    """The difference below the observed one at which the score test is at the edge of its level."""
    from scipy.optimize import brentq

    if lost == pairs:
        return -1.0
    critical = _normal_quantile((1 + CONFIDENCE) / 2)

    def excess(difference: float) -> float:
        deviation = math.sqrt(max(0.0, _null_variance(gained, lost, pairs, difference)))
        return gained - lost - pairs * difference - critical * deviation

    # at the observed difference itself the deviation can be 0, which would pass for a root
    return float(brentq(excess, -1.0, (gained - lost) / pairs - 1e-9, xtol=1e-9))


def _null_variance(gained: int, lost: int, pairs: int, difference: float) -> float:
    """Variance of gained - lost if the shares differed by ``difference``, most likely nuisance parameter."""
    linear = (2 * pairs - gained + lost) * difference - gained - lost
    constant = lost * difference * (1 - difference)
    share_lost = (math.sqrt(max(0.0, linear**2 + 8 * pairs * constant)) - linear) / (4 * pairs)
    return pairs * (2 * share_lost + difference * (1 - difference))


def wilson_interval(successes: int, trials: int) -> Interval:
    """95 % interval of a share."""
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def median_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of a median, from order statistics: it assumes no distribution. None for fewer than six values."""
    from scipy.stats import quantile_test

    if 0.5 ** len(values) > (1 - CONFIDENCE) / 2:
        return None  # not even the smallest and the largest enclose it so surely
    interval = quantile_test(values, p=0.5).confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high)


def mean_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of a mean: Student's t. None for fewer than two values."""
    from scipy.stats import sem, t

    if len(values) < 2:
        return None
    middle = fmean(values)
    if min(values) == max(values):
        return middle, middle
    scale = sem(sorted(values))  # its sums depend on the order in the last digit
    low, high = t.interval(CONFIDENCE, len(values) - 1, loc=middle, scale=scale)
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, so that all of them together are wrong at most as often as one is.

    Holm (1979). It holds for any dependence, which policies tried on the same problems have.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected


def problems_needed(difference: float, discordant_rate: float) -> int:
    """Problems with which McNemar's test finds a true ``difference`` with power 0.8 (Connor, Biometrics 43, 1987).

    ``discordant_rate`` is the share of problems that only one of two entries solves; it is at least the difference.
    """
    rate = max(discordant_rate, abs(difference))
    level, power = _normal_quantile((1 + CONFIDENCE) / 2), _normal_quantile(POWER)
    root = level * math.sqrt(rate) + power * math.sqrt(rate - difference**2)
    return math.ceil((root / difference) ** 2)


def _normal_quantile(share: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(share))
