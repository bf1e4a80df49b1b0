"""The table of a paper: what it says is the same in Markdown and in LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from attrs import frozen

from freshkv.compare.records import SequenceRecord
from freshkv.compare.report.columns import (
    Cell,
    accuracy_cell,
    agreement_cell,
    difference_cell,
    difference_interval_cell,
    interval,
    p_value_cell,
    policy_name,
    rows_cell,
    speedup_cell,
)
from freshkv.compare.report.sources import Source
from freshkv.compare.statistics import SIGNIFICANT, compare_pairs, holm
from freshkv.compare.summary import EntrySummary

HEADINGS = (
    "policy", "accuracy", "95% interval", "vs none, points", "95% interval", "p", "same answers", "rows/step",
    "speed-up", "95% interval",
)  # fmt: skip
ACCURACY, SPEEDUP = HEADINGS.index("accuracy"), HEADINGS.index("speed-up")


@frozen
class Line:
    """One entry."""

    cells: tuple[str, ...]
    bold: frozenset[int]  #: places of the cells that are the best of their block by more than chance


@frozen
class Block:
    """One task with one decoder."""

    task: str
    decoder: str
    lines: tuple[Line, ...]


@frozen
class PaperTable:
    """One results file."""

    name: str
    caption: str
    blocks: tuple[Block, ...]


def paper_table(source: Source) -> PaperTable:
    """All entries of ``source``."""
    groups = groupby(source.summaries, key=lambda summary: (summary.task, summary.decoder))
    return PaperTable(source.name, _caption(source), tuple(_block(source, *key, tuple(group)) for key, group in groups))


def _block(source: Source, task: str, decoder: str, summaries: Sequence[EntrySummary]) -> Block:
    bold = {ACCURACY: best_accuracy(source, summaries), SPEEDUP: best_speedup(summaries)}
    return Block(
        task,
        decoder,
        tuple(
            Line(
                (policy_name(summary), *(cell.text for cell in _cells(summary))),
                frozenset(place for place, best in bold.items() if best is summary),
            )
            for summary in summaries
        ),
    )


def _cells(summary: EntrySummary) -> Iterator[Cell]:
    yield accuracy_cell(summary)
    yield interval(summary.accuracy_interval, ".2f")
    yield difference_cell(summary)
    yield difference_interval_cell(summary)
    yield p_value_cell(summary)
    yield agreement_cell(summary)
    yield rows_cell(summary)
    yield speedup_cell(summary)
    yield interval(summary.speedup_interval, ".2f")


def best_accuracy(source: Source, summaries: Sequence[EntrySummary]) -> EntrySummary | None:
    """The policy that solves more problems than every other one by more than chance.

    By McNemar's test of each pair, corrected for their number. None where there is no such policy.
    """
    best, others = _best(summaries, lambda summary: summary.accuracy)
    if best is None or not others:
        return None
    mine = _answers(source, best)
    tests = []
    for other in others:
        theirs = _answers(source, other)
        common = sorted(mine.keys() & theirs.keys())
        if not common:
            return None
        tests.append(compare_pairs([mine[c].correct for c in common], [theirs[c].correct for c in common]))
    clear = all(p < SIGNIFICANT for p in holm([test.p_value for test in tests]))
    return best if clear and all(test.difference > 0 for test in tests) else None


def best_speedup(summaries: Sequence[EntrySummary]) -> EntrySummary | None:
    """The policy whose interval of the speed-up lies above those of all others; the uncached run's is 1."""
    best, others = _best(summaries, lambda summary: summary.speedup)
    if best is None or best.speedup_interval is None or not others:
        return None
    tops = [1.0 if other.paired is None else other.speedup_interval and other.speedup_interval[1] for other in others]
    return best if all(top is not None and top < best.speedup_interval[0] for top in tops) else None


def _best(
    summaries: Sequence[EntrySummary], value: Callable[[EntrySummary], float | None]
) -> tuple[EntrySummary | None, list[EntrySummary]]:
    """The policy with the largest value, and the other ones; references do not compete."""
    measured = [summary for summary in summaries if summary.role == "policy" and value(summary) is not None]
    best = max(measured, key=lambda summary: value(summary) or 0.0, default=None)
    return best, [summary for summary in measured if summary is not best]


def _answers(source: Source, summary: EntrySummary) -> dict[tuple[str, int, int], SequenceRecord]:
    return {
        record.case: record
        for record in source.results.answers
        if (record.task, record.policy, record.decoder) == (summary.task, summary.policy, summary.decoder)
    }


def _caption(source: Source) -> str:
    """Everything that a reader needs to judge the numbers."""
    header = source.results.header
    experiment, environment = header.experiment, header.environment
    counts = [summary.sequences for summary in source.summaries if summary.sequences > 0]
    least, most = min(counts, default=0), max(counts, default=0)
    problems = str(most) if least == most else f"{least} to {most}"
    blocks = "one block" if experiment["block_length"] is None else f"blocks of {experiment['block_length']}"
    lengths = "/".join(map(str, dict.fromkeys(experiment["gen_lengths"].values())))
    return (
        f"Cache policies on {header.model}: n = {problems} problems of each task; "
        f"decoder{'s' * (len(source.decoders) > 1)} {', '.join(source.decoders)}; {lengths} response tokens, {blocks}; "
        f"batches of {experiment['batch_size']}; {experiment['dtype']} on {environment['device']} "
        f"(threads: {environment['threads']}). Intervals are 95%: accuracy by Wilson, paired difference to none by "
        "Tango's score, speed-up from order statistics. p: exact McNemar test of the difference, with Holm's "
        "correction for the policies of a block. same answers: responses that equal the uncached run's token by token. "
        "Bold: best of its block by more than chance (accuracy: McNemar's test against every other policy, "
        "Holm's correction; speed-up: its interval lies above all others)."
    )
