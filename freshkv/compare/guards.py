"""What makes a comparison unfair, or weaker than it looks. Each guard says what it saw and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import quantiles
from typing import Any

from attrs import frozen

from freshkv.compare.entries import class_of
from freshkv.compare.records import SequenceRecord
from freshkv.compare.results import Results
from freshkv.compare.statistics import problems_needed
from freshkv.compare.summary import BASELINE, EntrySummary, summarize
from freshkv.compare.wording import join, points
from freshkv.core.spec import split_spec
from freshkv.models.registry import bundled_models

WORTH_KNOWING = 0.02  #: a difference in accuracy that a comparison should be able to tell
BUSY = 0.15  #: middle half of the uncached run's times over their median, beyond which a machine is called busy
FEWEST_TIMES = 6  #: that say anything about it
#: policies that the training of the bundled models imitates; their model cards say how
IMITATED = ("prefix", "dual")


@frozen(kw_only=True)
class FairnessWarning:
    """One reason for doubt."""

    guard: str  #: which guard it comes from, e.g. ``busy-machine``
    message: str  #: what was seen
    mend: str  #: what would remove the doubt

    def __str__(self) -> str:
        return f"{self.message} {self.mend}"


Guard = Callable[[Results, Sequence[EntrySummary]], Iterable[FairnessWarning]]


def check_fairness(results: Results, *others: Results) -> tuple[FairnessWarning, ...]:
    """Every doubt about ``results``; with ``others``, also about a table that shows all of them together."""
    found = list(_experiments_differ((results, *others)))
    for each in (results, *others):
        summaries = summarize(each)
        found += [warning for guard in GUARDS for warning in guard(each, summaries)]
    return tuple(dict.fromkeys(found))


def _experiments_differ(several: Sequence[Results]) -> Iterable[FairnessWarning]:
    """Files that are shown together, but were not made in the same way."""
    first, *others = several
    for other in others:
        if _entrants(first) == _entrants(other):
            continue  # a sweep over settings: each file is a comparison of its own
        names = sorted(_unlike(_conditions(first), _conditions(other)))
        if names:
            yield FairnessWarning(
                guard="experiments-differ",
                message=f"{first.path.name} and {other.path.name} differ in more than the policies: {join(names)}.",
                mend="Run all policies in one experiment.",
            )


def _entrants(results: Results) -> tuple[Any, Any]:
    experiment = results.header.experiment
    return experiment["policies"], experiment["decoders"]


def _conditions(results: Results) -> Mapping[str, Any]:
    """All that two files must share so that only their policies differ."""
    free = ("policies", "origins", "match_budget", "regret")
    experiment = {key: value for key, value in results.header.experiment.items() if key not in free}
    return {**experiment, **results.header.environment}


def _unlike(left: Mapping[str, Any], right: Mapping[str, Any]) -> set[str]:
    return {name for name in left.keys() | right.keys() if left.get(name) != right.get(name)}


def _decoders_differ(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """A policy with a decoder that the others did not have: the order of decoding differs, too."""
    used: dict[str, set[str]] = {}
    for summary in summaries:
        if summary.role == "policy" and summary.sequences > 0:
            used.setdefault(summary.given or summary.policy, set()).add(summary.decoder)
    everywhere = set.union(*used.values()) if used else set()
    partial = {policy: decoders for policy, decoders in used.items() if decoders != everywhere}
    if partial:
        listed = [f"{policy} with {join(sorted(decoders))} only" for policy, decoders in partial.items()]
        yield FairnessWarning(
            guard="decoders-differ",
            message=f"Policies ran with different decoders: {join(listed)}. The order of decoding differs, too.",
            mend="Compare within a decoder, and run every policy with every decoder.",
        )


def _problems_differ(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """An entry that lacks problems: its accuracy is not one of the same problems."""
    truths = {(s.task, s.decoder): s.sequences for s in summaries if s.policy == BASELINE}
    short = [
        f"{s.policy} with {s.decoder} on {s.task} ({s.sequences} of {truths[s.task, s.decoder]})"
        for s in summaries
        if 0 < s.sequences < truths.get((s.task, s.decoder), 0)
    ]
    if short:
        yield FairnessWarning(
            guard="problems-differ",
            message=f"Fewer problems than the uncached run: {join(short)}. Accuracies there are of other problems.",
            mend="Run the same command again: it continues with what is missing. Differences use common problems only.",
        )


def _batches_differ(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Problems decoded in a batch of another size than the uncached run's: their times do not compare."""
    sizes = {(r.case, r.decoder, r.repeat): r.batch for r in results.sequences if r.policy == BASELINE}
    unlike = {
        record.policy
        for record in results.sequences
        if sizes.get((record.case, record.decoder, record.repeat), record.batch) != record.batch
    }
    if unlike:
        yield FairnessWarning(
            guard="batches-differ",
            message=f"Some problems were decoded in other batches by {join(sorted(unlike))} than by the uncached run, "
            "as happens when an experiment is interrupted. Their times do not compare.",
            mend="Measure speed in a run without interruption.",
        )


def _tuned_elsewhere(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Defaults that their paper chose for other models and tasks."""
    tasks = results.header.experiment["tasks"]
    origins = []
    for policy in dict.fromkeys(summary.policy for summary in summaries if summary.role == "policy"):
        cls = class_of(policy)
        if cls is None or split_spec(policy)[1] or not cls.tuned_for:
            continue
        if not all(task.lower() in cls.tuned_for.lower() for task in tasks):
            origins.append(f"{policy} for {cls.tuned_for}")
    if origins:
        yield FairnessWarning(
            guard="tuned-elsewhere",
            message=f"Defaults were chosen elsewhere, those of {'; of '.join(origins)}. "
            f"This is {results.header.model} on {join(tasks)}.",
            mend="Choose the options on other problems of these tasks, or compare at equal rows with --match-budget.",
        )


def _too_wide(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Too few problems to tell a difference that would matter."""
    open_pairs = [
        summary.paired
        for summary in summaries
        if summary.role == "policy"
        and summary.paired is not None
        and not summary.is_significant
        and summary.paired.interval[0] < -WORTH_KNOWING
    ]
    if open_pairs:
        needed = [_rounded_up(problems_needed(WORTH_KNOWING, pair.discordant_rate)) for pair in open_pairs]
        least, most = min(needed), max(needed)
        number = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        yield FairnessWarning(
            guard="too-few-problems",
            message=f"In {len(open_pairs)} of {_count_pairs(summaries)} comparisons with the uncached run, a loss of "
            f"{100 * WORTH_KNOWING:.0f} points is neither shown nor excluded.",
            mend=f"To tell one takes about {number} problems of each task: --problems, and several --seed.",
        )


def _rounded_up(count: int) -> int:
    """To two digits: an estimate from few problems knows no more."""
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def _count_pairs(summaries: Sequence[EntrySummary]) -> int:
    return sum(summary.role == "policy" and summary.paired is not None for summary in summaries)


def _busy_machine(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Times of the uncached run that vary where its work does not."""
    groups: dict[tuple[str, str], list[SequenceRecord]] = {}
    for record in results.sequences:
        if record.policy == BASELINE:
            groups.setdefault((record.task, record.decoder), []).append(record)
    spreads = [time_spread(group) for group in groups.values() if len(group) >= FEWEST_TIMES]
    if spreads and max(spreads) > BUSY:
        yield FairnessWarning(
            guard="busy-machine",
            message="The machine was busy: for the same work, the middle half of the uncached run's times is spread "
            f"over {max(spreads):.0%} of their median.",
            mend="Measure speed on an idle machine, or take --repeats 5. Rows computed do not depend on it.",
        )


def time_spread(records: Sequence[SequenceRecord]) -> float:
    """Middle half of the times, over their median: per row or per forward pass, whichever varies less."""
    spreads = []
    for work in ([r.rows_computed for r in records], [r.forwards for r in records]):
        lower, middle, upper = quantiles(r.seconds / amount for r, amount in zip(records, work, strict=True))
        spreads.append((upper - lower) / middle)
    return min(spreads)


def _side_by_side(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Sequences that were timed while other workers of the experiment computed on the same machine."""
    most = max((record.workers for record in results.sequences), default=1)
    if most > 1:
        count = sum(record.workers > 1 for record in results.sequences)
        yield FairnessWarning(
            guard="side-by-side",
            message=f"{count} of {len(results.sequences)} sequences were timed while up to {most} workers computed on "
            "one machine and shared its memory and caches. Runs that a speed-up compares were made in turns by one "
            "worker; seconds and tokens per s are less sure.",
            mend="Measure speed without --on ray, or with one worker a machine.",
        )


def _imitated_in_training(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """A bundled model, and policies that its training imitates."""
    favoured = [name for name in IMITATED if any(split_spec(s.policy)[0] == name for s in summaries)]
    if results.header.model in bundled_models() and favoured:
        yield FairnessWarning(
            guard="imitated-in-training",
            message=f"A part of the training of {results.header.model} imitates a prefix or dual cache, which favours "
            f"{join(favoured)}: its accuracies say little about other models.",
            mend="Draw conclusions on policies from a checkpoint that was trained without a cache.",
        )


def _truth_beside(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Policies that see the truth: it is computed beside them, and costs what no cache would."""
    classes = {class_of(summary.policy) for summary in summaries}
    seeing = {cls.name for cls in classes if cls is not None and cls.uses_truth}
    if seeing:
        yield FairnessWarning(
            guard="truth-beside",
            message=f"An uncached pass runs beside {join(sorted(seeing))}: its seconds and memory are not those of a "
            "cache.",
            mend="Compare accuracy and agreement at equal rows with it, nothing else.",
        )


def _not_deterministic(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Repeats that decode other tokens: the first one counts, and chance decides which that is."""
    answers = {(record.entry, record.case): record.response for record in results.answers}
    varying = {
        record.policy
        for record in results.sequences
        if answers.get((record.entry, record.case), record.response) != record.response
    }
    if varying:
        yield FairnessWarning(
            guard="not-deterministic",
            message=f"Repeats of a problem gave other tokens with {join(sorted(varying))}.",
            mend="Look for kernels that are not deterministic: torch.use_deterministic_algorithms(True).",
        )


def _budgets_missed(results: Results, summaries: Sequence[EntrySummary]) -> Iterable[FairnessWarning]:
    """Budgets that were matched on the calibration problems, but not on those compared."""
    targets = {(setting.task, setting.decoder): setting.target for setting in results.header.settings}
    missed = []
    for summary in summaries:
        target = targets[summary.task, summary.decoder]
        if summary.is_matched and target is not None and summary.rows_share is not None:
            off = summary.rows_share - target
            if abs(off) > 2 * WORTH_KNOWING and summary.role == "policy":
                missed.append(f"{summary.policy} with {summary.decoder} on {summary.task} ({points(off)} points)")
    if missed:
        yield FairnessWarning(
            guard="budgets-missed",
            message=f"Budgets that were matched on other problems are not equal on these: {join(missed)}.",
            mend="Read accuracy beside rows/step, or match to a fixed share.",
        )


GUARDS: tuple[Guard, ...] = (
    _decoders_differ,
    _problems_differ,
    _batches_differ,
    _not_deterministic,
    _budgets_missed,
    _tuned_elsewhere,
    _imitated_in_training,
    _too_wide,
    _busy_machine,
    _side_by_side,
    _truth_beside,
)
