"""What a comparison shows, in words that claim no more than its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import geometric_mean

from attrs import frozen

from freshkv.compare.summary import BASELINE, EntrySummary

#: ratios nearer to 1 than this are called equal
EQUAL = 0.05


def describe_findings(summaries: Sequence[EntrySummary]) -> list[str]:
    """A few sentences on accuracy, speed, and entries that failed."""
    pairs = _pairs(summaries)
    return [*_accuracy(pairs), *_agreement(pairs), *_speed(pairs), *_failures(summaries)]


@frozen
class _Pair:
    """A policy's summary beside that of the uncached run."""

    name: str
    own: EntrySummary
    truth: EntrySummary
    accuracy: float
    truth_accuracy: float

    @property
    def is_clearly_below(self) -> bool:
        """Whether the two intervals do not meet: a cautious test."""
        own, truth = self.own.accuracy_interval, self.truth.accuracy_interval
        return own is not None and truth is not None and own[1] < truth[0]

    @property
    def takes_more_forwards(self) -> bool:
        return (self.own.forwards or 0.0) > (1 + EQUAL) * (self.truth.forwards or 0.0)

    @property
    def loss(self) -> str:
        return f"{self.name} on {self.own.task} ({self.accuracy:.2f} against {self.truth_accuracy:.2f})"


def _pairs(summaries: Sequence[EntrySummary]) -> list[_Pair]:
    several_decoders = len({summary.decoder for summary in summaries}) > 1
    truths = {(s.task, s.decoder): s for s in summaries if s.policy == BASELINE}
    pairs = []
    for own in summaries:
        truth = truths.get((own.task, own.decoder))
        if own.policy != BASELINE and truth is not None and own.accuracy is not None and truth.accuracy is not None:
            name = f"{own.policy} with {own.decoder}" if several_decoders else own.policy
            pairs.append(_Pair(name, own, truth, own.accuracy, truth.accuracy))
    return pairs


def _accuracy(pairs: Sequence[_Pair]) -> Iterable[str]:
    clear = [pair for pair in pairs if pair.is_clearly_below]
    slight = [pair for pair in pairs if pair.accuracy < pair.truth_accuracy and not pair.is_clearly_below]
    if clear:
        yield f"Solves clearly fewer problems than without a cache: {_join(pair.loss for pair in clear)}."
    if slight:
        yield f"Solves fewer, but so few problems cannot tell that from chance: {_join(pair.loss for pair in slight)}."
    if pairs and not clear and not slight:
        least = min(pair.own.accuracy_interval[0] for pair in pairs if pair.own.accuracy_interval is not None)
        count = min(pair.own.sequences for pair in pairs)
        yield (
            "No policy solves fewer problems than the uncached run on any task; "
            f"with {count} of each task, intervals still reach down to {least:.2f}."
        )


def _agreement(pairs: Sequence[_Pair]) -> Iterable[str]:
    changed = [
        f"{pair.name} on {pair.own.task} ({1 - pair.own.agreement:.0%})"
        for pair in pairs
        if pair.own.agreement is not None and pair.own.agreement < 1 and pair.accuracy >= pair.truth_accuracy
    ]
    if changed:
        yield f"Solves as many, yet with other tokens than the uncached run in some answers: {_join(changed)}."


def _speed(pairs: Sequence[_Pair]) -> Iterable[str]:
    """Speed-up over all tasks: the geometric mean of the medians."""
    groups: dict[str, list[_Pair]] = {}
    for pair in pairs:
        if pair.own.speedup is not None:
            groups.setdefault(pair.name, []).append(pair)
    speedups = {name: geometric_mean([pair.own.speedup or 0.0 for pair in group]) for name, group in groups.items()}
    order = sorted(speedups, key=lambda name: -speedups[name])
    faster = [name for name in order if speedups[name] > 1 + EQUAL]
    slower = [name for name in order if speedups[name] < 1 - EQUAL]
    if faster:
        best, *others = faster
        follow = f", then {_join(f'{name} {speedups[name]:.2f}x' for name in others)}" if others else ""
        rows = _rows(groups[best])
        yield f"Fastest is {best} at {speedups[best]:.2f}x the uncached run, computing {rows} of the rows{follow}."
    if slower:
        yield f"Slower than no cache: {_join(f'{name} ({speedups[name]:.2f}x)' for name in slower)}."
        yield from _reasons({name: groups[name] for name in slower})
    if speedups and not faster and not slower:
        yield "No policy is much faster or slower than the uncached run here."


def _reasons(slower: Mapping[str, Sequence[_Pair]]) -> Iterable[str]:
    """Why entries are slower: more passes, or passes that cost more."""
    longer = [name for name, group in slower.items() if any(pair.takes_more_forwards for pair in group)]
    if longer:
        yield f"More forward passes than without a cache: {_join(longer)}."
    if len(longer) < len(slower):
        yield (
            "Choosing rows can cost more than leaving them out saves; the share of rows computed says what a larger "
            "model could gain."
        )


def _rows(group: Sequence[_Pair]) -> str:
    shares = sorted(pair.own.rows_share for pair in group if pair.own.rows_share is not None)
    low, high = f"{shares[0]:.0%}", f"{shares[-1]:.0%}"
    return low if low == high else f"{low} to {high}"


def _failures(summaries: Sequence[EntrySummary]) -> Iterable[str]:
    failures = {(s.policy, s.decoder): s.failure for s in summaries if s.failure is not None}
    for (policy, decoder), failure in failures.items():
        where = f"{policy} with {decoder} failed on problem {failure.problem} of {failure.task}"
        yield f"{where} ({failure.error}): {failure.message}"


def _join(parts: Iterable[str]) -> str:
    listed = list(parts)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
