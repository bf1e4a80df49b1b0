"""What a comparison shows, in words that claim no more than its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import geometric_mean

from attrs import frozen

from freshkv.compare.statistics import PairedDifference
from freshkv.compare.summary import BASELINE, EntrySummary
from freshkv.compare.timing import Speedup
from freshkv.compare.wording import equation, interval, join, p_value, percent_range, points, times

#: more forward passes than this factor says are called more
MORE = 1.05


def describe_findings(summaries: Sequence[EntrySummary]) -> list[str]:
    """A few sentences on accuracy, budgets, speed, and entries that failed."""
    pairs = _pairs(summaries)
    return [
        *_accuracy(pairs),
        *_agreement(pairs),
        *_budgets(pairs),
        *_speed(pairs),
        *_failures(summaries),
    ]


@frozen
class _Pair:
    """A competing policy's summary beside that of the uncached run."""

    name: str
    own: EntrySummary
    truth: EntrySummary
    paired: PairedDifference

    @property
    def is_below(self) -> bool:
        return self.paired.difference < 0

    @property
    def takes_more_forwards(self) -> bool:
        return (self.own.forwards or 0.0) > MORE * (self.truth.forwards or 0.0)

    @property
    def shares(self) -> str:
        """The two accuracies on the problems of both."""
        own, truth = self.paired.shares
        return f"{self.name} on {self.own.task} ({own:.2f} against {truth:.2f}"

    @property
    def beyond_doubt(self) -> str:
        difference = f"{points(self.paired.difference)} points, 95 % interval {interval(self.paired.interval, points)}"
        return f"{self.shares}; {difference}; {equation(self.own.corrected_p)})"


def _pairs(summaries: Sequence[EntrySummary]) -> list[_Pair]:
    several_decoders = len({summary.decoder for summary in summaries}) > 1
    truths = {(s.task, s.decoder): s for s in summaries if s.policy == BASELINE}
    pairs = []
    for own in summaries:
        truth = truths.get((own.task, own.decoder))
        if own.role == "policy" and own.paired is not None and truth is not None:
            name = f"{own.policy} with {own.decoder}" if several_decoders else own.policy
            pairs.append(_Pair(name, own, truth, own.paired))
    return pairs


def _accuracy(pairs: Sequence[_Pair]) -> Iterable[str]:
    losses = [pair for pair in pairs if pair.is_below and pair.own.is_significant]
    gains = [pair for pair in pairs if pair.paired.difference > 0 and pair.own.is_significant]
    slight = [pair for pair in pairs if pair.is_below and not pair.own.is_significant]
    if losses:
        yield (
            f"Solves fewer problems than without a cache, and not by chance: {join(p.beyond_doubt for p in losses)}."
        )
    if gains:
        yield f"Solves more problems than without a cache, and not by chance: {join(p.beyond_doubt for p in gains)}."
    if slight:
        least = p_value(min(pair.own.corrected_p or 0.0 for pair in slight))
        yield (
            f"Solves fewer, but so few problems cannot tell that from chance (p at least {least}): "
            f"{join(f'{pair.shares})' for pair in slight)}."
        )
    yield from _exclusion([pair for pair in pairs if pair not in losses], is_all=not losses and not slight)


def _exclusion(pairs: Sequence[_Pair], *, is_all: bool) -> Iterable[str]:
    """What loss the data exclude, where none is shown: no proof of no loss."""
    if not pairs:
        return
    worst = max(0.0, -min(pair.paired.interval[0] for pair in pairs))
    count = min(pair.paired.pairs for pair in pairs)
    problems = f"{count} problem{'s' * (count != 1)} of each task"
    if is_all:
        yield (
            f"No policy solves fewer problems than the uncached run on any task. With {problems} that excludes a loss "
            f"of more than {100 * worst:.0f} points (95 % intervals), and no smaller one."
        )
    else:
        yield (
            f"For those without a loss beyond chance, {problems} exclude one of more than {100 * worst:.0f} points "
            "(95 % intervals), and no smaller one."
        )


def _agreement(pairs: Sequence[_Pair]) -> Iterable[str]:
    changed = [
        f"{pair.name} on {pair.own.task} ({1 - pair.own.agreement:.0%})"
        for pair in pairs
        if pair.own.agreement is not None and pair.own.agreement < 1 and not pair.is_below
    ]
    if changed:
        yield f"Solves as many, yet with other tokens than the uncached run in some answers: {join(changed)}."


def _budgets(pairs: Sequence[_Pair]) -> Iterable[str]:
    """Which budgets could be matched."""
    tried = [pair for pair in pairs if pair.own.is_matched is not None]
    missed = [pair for pair in tried if not pair.own.is_matched]
    if tried and not missed:
        yield "All policies compute as many rows as was asked for, within 2 points of the canvas."
    if missed:
        named = [f"{pair.name} on {pair.own.task} ({pair.own.rows_share or 0.0:.0%})" for pair in missed]
        yield f"Could not be brought to the budget, and stands there with its own share of the rows: {join(named)}."


def _speed(pairs: Sequence[_Pair]) -> Iterable[str]:
    """Which are faster or slower on every task, as far as the intervals say."""
    groups: dict[str, list[_Pair]] = {}
    for pair in pairs:
        if pair.own.speed is not None:
            groups.setdefault(pair.name, []).append(pair)
    entries = sorted((_Timed.of(name, group) for name, group in groups.items()), key=lambda timed: -timed.mean)
    faster = [timed for timed in entries if timed.verdict == "faster"]
    slower = [timed for timed in entries if timed.verdict == "slower"]
    unclear = [timed for timed in entries if timed.verdict == "unclear"]
    unknown = [timed for timed in entries if timed.verdict == "unknown"]
    if faster:
        yield f"Faster than the uncached run, each interval above 1: {join(timed.with_rows for timed in faster)}."
    if slower:
        yield f"Slower than the uncached run, each interval below 1: {join(map(str, slower))}."
        yield from _reasons({timed.name: groups[timed.name] for timed in slower})
    if unclear:
        yield f"Neither faster nor slower on every task beyond doubt: {join(map(str, unclear))}."
    if unknown:
        yield f"Too few problems for an interval of speed, which takes 6: {join(map(str, unknown))}."


@frozen
class _Timed:
    """A policy's speed-ups, a task each."""

    name: str
    speeds: tuple[Speedup, ...]
    rows: str

    @classmethod
    def of(cls, name: str, group: Sequence[_Pair]) -> _Timed:
        speeds = tuple(pair.own.speed for pair in group if pair.own.speed is not None)
        return cls(name, speeds, percent_range([pair.own.rows_share or 0.0 for pair in group]))

    @property
    def mean(self) -> float:
        """Over tasks: the geometric mean of the medians."""
        return geometric_mean([speed.median for speed in self.speeds])

    @property
    def verdict(self) -> str:
        intervals = [speed.interval for speed in self.speeds]
        if any(each is None for each in intervals):
            return "unknown"
        known = [each for each in intervals if each is not None]
        if all(low > 1 for low, _ in known):
            return "faster"
        return "slower" if all(high < 1 for _, high in known) else "unclear"

    @property
    def spread(self) -> str:
        """The interval on one task; on several, from the slowest to the fastest of them."""
        if len(self.speeds) > 1:
            medians = [speed.median for speed in self.speeds]
            return f"{interval((min(medians), max(medians)), times)} by task"
        (speed,) = self.speeds
        return "" if speed.interval is None else interval(speed.interval, times)

    @property
    def with_rows(self) -> str:
        return f"{self.name} {times(self.mean)} ({self.spread}; {self.rows} of the rows)"

    def __str__(self) -> str:
        spread = f" ({self.spread})" if self.spread else ""
        return f"{self.name} {times(self.mean)}{spread}"


def _reasons(slower: Mapping[str, Sequence[_Pair]]) -> Iterable[str]:
    """Why entries are slower: more passes, or passes that cost more."""
    longer = [name for name, group in slower.items() if any(pair.takes_more_forwards for pair in group)]
    if longer:
        yield f"More forward passes than without a cache: {join(longer)}."
    if len(longer) < len(slower):
        yield (
            "Choosing rows can cost more than leaving them out saves; the share of rows computed says what a larger "
            "model could gain."
        )


def _failures(summaries: Sequence[EntrySummary]) -> Iterable[str]:
    failures = {(s.policy, s.decoder): s.failure for s in summaries if s.failure is not None}
    for (policy, decoder), failure in failures.items():
        where = f"{policy} with {decoder} failed on problem {failure.problem} of {failure.task}"
        yield f"{where} ({failure.error}): {failure.message}"
