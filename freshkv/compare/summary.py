"""Each entry's results in numbers, beside the uncached run of the same decoder on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median

from attrs import frozen

from freshkv.compare.records import FailureRecord, SequenceRecord
from freshkv.compare.results import Results

BASELINE = "none"
CONFIDENCE = 0.95  #: of intervals


@frozen(kw_only=True)
class EntrySummary:
    """One policy with one decoder on one task. None where nothing was measured, or nothing to compare with."""

    task: str
    policy: str
    decoder: str
    sequences: int = 0
    accuracy: float | None = None  #: share of problems solved
    accuracy_interval: tuple[float, float] | None = None  #: 95 %, Wilson
    agreement: float | None = None  #: share of problems whose response tokens all equal those of the uncached run
    tokens_per_second: float | None = None  #: all tokens / all seconds
    speedup: float | None = None  #: median over problems of the ratio of tokens per second to the uncached run's
    forwards: float | None = None  #: passes a sequence, mean
    rows_share: float | None = None  #: rows computed a pass, as a share of the canvas
    peak_bytes: int | None = None  #: the most that any run held
    cache_bytes: int | None = None
    failure: FailureRecord | None = None  #: why the entry stopped early


def summarize(results: Results) -> tuple[EntrySummary, ...]:
    """A summary of every task, decoder and policy, in the order of the experiment."""
    experiment = results.header.experiment
    groups: dict[tuple[str, str, str], dict[tuple[str, int, int], SequenceRecord]] = {}
    for record in results.sequences:
        groups.setdefault((record.task, record.policy, record.decoder), {})[record.case] = record
    return tuple(
        _summarize_entry(
            (task, policy, decoder),
            groups.get((task, policy, decoder), {}),
            groups.get((task, BASELINE, decoder), {}),
            results.open_failures.get((policy, decoder)),
        )
        for task in experiment["tasks"]
        for decoder in experiment["decoders"]
        for policy in experiment["policies"]
    )


Cases = Mapping[tuple[str, int, int], SequenceRecord]


def _summarize_entry(
    key: tuple[str, str, str], own: Cases, baseline: Cases, failure: FailureRecord | None
) -> EntrySummary:
    task, policy, decoder = key
    if not own:
        return EntrySummary(task=task, policy=policy, decoder=decoder, failure=failure)
    records = list(own.values())
    solved = sum(record.correct for record in records)
    pairs = [(record, baseline[case]) for case, record in own.items() if case in baseline]
    return EntrySummary(
        task=task,
        policy=policy,
        decoder=decoder,
        sequences=len(records),
        accuracy=solved / len(records),
        accuracy_interval=wilson_interval(solved, len(records)),
        agreement=mean(float(record.response == truth.response) for record, truth in pairs) if pairs else None,
        tokens_per_second=_speed(records),
        speedup=median(_speed([record]) / _speed([truth]) for record, truth in pairs) if pairs else None,
        forwards=mean(record.forwards for record in records),
        rows_share=sum(r.rows_computed for r in records) / sum(r.forwards * r.canvas for r in records),
        peak_bytes=max(record.peak_bytes for record in records),
        cache_bytes=max(record.cache_bytes for record in records),
        failure=failure,
    )


def _speed(records: Sequence[SequenceRecord]) -> float:
    """Tokens a second over all records: not a mean of ratios, so that long sequences count for what they are."""
    return sum(record.tokens_produced for record in records) / sum(record.seconds for record in records)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share."""
    from scipy.stats import binomtest  # a second to import, and only summaries need it

    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
