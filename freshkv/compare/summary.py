"""Each entry's results in numbers, beside the uncached run of the same decoder on the same problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from statistics import mean

from attrs import evolve, frozen

from freshkv.compare.costs import bytes_speedup, flops_speedup, mean_cost
from freshkv.compare.entries import class_of
from freshkv.compare.lineup import Entrant, Role, Setting
from freshkv.compare.records import FailureRecord, SequenceRecord, rows_share
from freshkv.compare.results import Results
from freshkv.compare.statistics import SIGNIFICANT, Interval, PairedDifference, compare_pairs, holm, wilson_interval
from freshkv.compare.timing import Speedup, compare_speed, tokens_per_second
from freshkv.core.cost import Cost

BASELINE = "none"

#: task, seed, index of the problem
CaseKey = tuple[str, int, int]


@frozen(kw_only=True)
class EntrySummary:
    """One policy with one decoder on one task. None where nothing was measured, or nothing to compare with.

    "The uncached run" is that of the same decoder on the same problems.
    """

    task: str
    policy: str
    decoder: str
    role: Role = "policy"  #: oracle and random are references at the budget of ``given``
    given: str = ""  #: the spec string that was asked for, where budgets were matched; empty: ``policy``
    sequences: int = 0  #: problems decoded
    accuracy: float | None = None  #: share of problems solved
    accuracy_interval: Interval | None = None  #: 95 %, Wilson
    paired: PairedDifference | None = None  #: to the uncached run, problem by problem; of that run itself None
    corrected_p: float | None = None  #: p-value of ``paired``, Holm's correction for the policies of this setting
    agreement: float | None = None  #: share of problems whose response tokens all equal those of the uncached run
    token_agreement: float | None = None  #: share of response tokens that do, mean over problems
    first_divergence: float | None = None  #: share of the response before the first other token, mean over problems
    tokens_per_second: float | None = None  #: all tokens / all seconds
    #: ratio of tokens per second to the uncached run's; None for a policy that an uncached pass runs beside
    speed: Speedup | None = None
    forwards: float | None = None  #: passes a sequence, mean
    rows_share: float | None = None  #: rows computed a pass, as a share of the canvas
    calibrated_share: float | None = None  #: the same on the calibration problems, where budgets were measured
    is_matched: bool | None = None  #: whether its budget could be matched there; None: it was not to be
    peak_bytes: int | None = None  #: the most that any run held
    cache_bytes: int | None = None
    cost: Cost | None = None  #: of a sequence, mean
    flops_speedup: float | None = None  #: operations of the uncached run over its own: what they alone would allow
    bytes_speedup: float | None = None  #: bytes moved, likewise
    failure: FailureRecord | None = None  #: why the entry stopped early

    @property
    def speedup(self) -> float | None:
        """Median over problems of the ratio of tokens per second to the uncached run's."""
        return None if self.speed is None else self.speed.median

    @property
    def speedup_interval(self) -> Interval | None:
        """95 % interval of ``speedup``; None for the uncached run itself, and for fewer than six problems."""
        return None if self.speed is None or self.policy == BASELINE else self.speed.interval

    @property
    def is_significant(self) -> bool:
        """Whether the accuracy differs from the uncached run's by more than chance, after correction."""
        return self.corrected_p is not None and self.corrected_p < SIGNIFICANT


def summarize(results: Results) -> tuple[EntrySummary, ...]:
    """A summary of every task, decoder and policy, in the order of the experiment."""
    groups: dict[tuple[str, str, str], list[SequenceRecord]] = {}
    for record in results.sequences:
        groups.setdefault((record.task, record.policy, record.decoder), []).append(record)
    batch_size = results.header.experiment.get("batch_size", 1)
    return tuple(
        summary
        for setting in results.header.settings
        for summary in _correct(
            [_summarize(setting, entrant, groups, batch_size, results) for entrant in setting.entrants]
        )
    )


def answers_of(results: Results, task: str, policy: str, decoder: str) -> dict[CaseKey, SequenceRecord]:
    """Problem to its first decoding by one entry: repeats count as times only."""
    return _answers([r for r in results.sequences if (r.task, r.policy, r.decoder) == (task, policy, decoder)])


def _correct(summaries: Sequence[EntrySummary]) -> list[EntrySummary]:
    """With p-values corrected for the number of competing policies; references do not compete."""
    tested = {
        place: summary.paired.p_value
        for place, summary in enumerate(summaries)
        if summary.role == "policy" and summary.paired is not None
    }
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return [evolve(summary, corrected_p=corrected.get(place)) for place, summary in enumerate(summaries)]


def _summarize(
    setting: Setting,
    entrant: Entrant,
    groups: Mapping[tuple[str, str, str], Sequence[SequenceRecord]],
    batch_size: int,
    results: Results,
) -> EntrySummary:
    own = groups.get((setting.task, entrant.policy, setting.decoder), ())
    baseline = groups.get((setting.task, BASELINE, setting.decoder), ())
    empty = EntrySummary(
        task=setting.task,
        policy=entrant.policy,
        decoder=setting.decoder,
        role=entrant.role,
        given=entrant.given,
        calibrated_share=entrant.share,
        is_matched=entrant.is_matched,
        failure=results.open_failures.get((entrant.policy, setting.decoder)),
    )
    return _with_truth(_with_own(empty, own), own, baseline, batch_size) if own else empty


def _answers(records: Sequence[SequenceRecord]) -> dict[CaseKey, SequenceRecord]:
    return {record.case: record for record in records if record.repeat == 0}


def _with_own(summary: EntrySummary, records: Sequence[SequenceRecord]) -> EntrySummary:
    """What needs no other entry."""
    answers = list(_answers(records).values())
    solved = sum(record.correct for record in answers)
    return evolve(
        summary,
        sequences=len(answers),
        accuracy=solved / len(answers),
        accuracy_interval=wilson_interval(solved, len(answers)),
        tokens_per_second=tokens_per_second(records),
        forwards=mean(record.forwards for record in answers),
        rows_share=rows_share(answers),
        peak_bytes=max(record.peak_bytes for record in records),
        cache_bytes=max(record.cache_bytes for record in records),
        cost=mean_cost([record.cost for record in answers]),
    )


def _with_truth(
    summary: EntrySummary, own: Sequence[SequenceRecord], baseline: Sequence[SequenceRecord], batch_size: int
) -> EntrySummary:
    """What compares with the uncached run."""
    answers, truths = _answers(own), _answers(baseline)
    pairs = [(record, truths[case]) for case, record in answers.items() if case in truths]
    if not pairs:
        return summary
    correct = [record.correct for record, _ in pairs], [truth.correct for _, truth in pairs]
    costs = mean_cost([record.cost for record, _ in pairs]), mean_cost([truth.cost for _, truth in pairs])
    return evolve(
        summary,
        paired=None if summary.policy == BASELINE else compare_pairs(*correct),
        agreement=mean(float(record.response == truth.response) for record, truth in pairs),
        token_agreement=mean(equal_tokens(record, truth) for record, truth in pairs),
        first_divergence=mean(_equal_start(record, truth) for record, truth in pairs),
        speed=None if _uses_truth(summary.policy) else compare_speed(own, baseline, batch_size),
        flops_speedup=flops_speedup(*costs),
        bytes_speedup=bytes_speedup(*costs),
    )


def _uses_truth(policy: str) -> bool:
    """Whether an uncached pass runs beside the policy: its seconds are then not those of a cache."""
    cls = class_of(policy)
    return cls is not None and cls.uses_truth


def equal_tokens(record: SequenceRecord, truth: SequenceRecord) -> float:
    """Share of response tokens that are the same."""
    return mean(float(mine == theirs) for mine, theirs in zip(record.response, truth.response, strict=True))


def _equal_start(record: SequenceRecord, truth: SequenceRecord) -> float:
    """Share of the response before the first token that differs; 1 where none does."""
    both = list(zip(record.response, truth.response, strict=True))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both)) / len(both)
