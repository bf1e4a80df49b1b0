"""How much faster one entry is than another, from runs that took turns at the same problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from statistics import median

from attrs import frozen

from freshkv.compare.records import SequenceRecord
from freshkv.compare.statistics import Interval, median_interval

#: what is decoded together: seed, and the number of the batch among those of a seed
Batch = tuple[int, int]


@frozen(kw_only=True)
class Speedup:
    """The ratio of two entries' tokens per second."""

    batches: int  #: that both decoded; of one problem each, unless sequences are decoded together
    median: float  #: over batches
    interval: Interval | None  #: 95 %, from order statistics; None for fewer than six batches


def compare_speed(
    own: Iterable[SequenceRecord], other: Iterable[SequenceRecord], batch_size: int = 1
) -> Speedup | None:
    """Median over batches of the ratio of tokens per second; None where there is no batch that both decoded.

    The sequences of a batch share its time, so that a batch is one observation. Of its repeats the median counts: they
    are no further problems.
    """
    mine, theirs = _by_batch(own, batch_size), _by_batch(other, batch_size)
    ratios = [
        median(_speed(mine[batch][repeat]) / _speed(theirs[batch][repeat]) for repeat in repeats)
        for batch in mine.keys() & theirs.keys()
        if (repeats := _common_repeats(mine[batch], theirs[batch]))
    ]
    if not ratios:
        return None
    return Speedup(batches=len(ratios), median=median(ratios), interval=median_interval(ratios))


def tokens_per_second(records: Sequence[SequenceRecord]) -> float:
    """All tokens / all seconds: not a mean of ratios, so that long sequences count for what they are."""
    return sum(record.tokens_produced for record in records) / fsum(record.seconds for record in records)


_Repeats = Mapping[int, Mapping[int, SequenceRecord]]


def _by_batch(records: Iterable[SequenceRecord], batch_size: int) -> dict[Batch, dict[int, dict[int, SequenceRecord]]]:
    """Batch -> repeat -> problem -> record, of one task."""
    batches: dict[Batch, dict[int, dict[int, SequenceRecord]]] = {}
    for record in records:
        batch = batches.setdefault((record.seed, record.problem // batch_size), {})
        batch.setdefault(record.repeat, {})[record.problem] = record
    return batches


def _common_repeats(mine: _Repeats, theirs: _Repeats) -> list[int]:
    """Those in which both decoded the same problems."""
    return [repeat for repeat in mine.keys() & theirs.keys() if mine[repeat].keys() == theirs[repeat].keys()]


def _speed(batch: Mapping[int, SequenceRecord]) -> float:
    return tokens_per_second(list(batch.values()))
