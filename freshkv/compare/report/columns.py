"""What the report's tables show of an entry: each column once, for the page and for papers."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from freshkv.compare import wording
from freshkv.compare.statistics import Interval
from freshkv.compare.summary import EntrySummary

NOTHING = "\N{EN DASH}"
MEGABYTE = 1e6
TIMES = "\N{MULTIPLICATION SIGN}"
MINUS = "\N{MINUS SIGN}"


@frozen
class Cell:
    """One number, or words."""

    text: str
    value: float | None = None  #: what it sorts by; None: there is nothing to show
    is_significant: bool = False


@frozen
class Column:
    """A column of a table."""

    title: str
    about: str  #: for the words below the table
    read: Callable[[EntrySummary], Cell]


def number(value: float | None, pattern: str, suffix: str = "") -> Cell:
    """A number as ``pattern`` formats it, with a true minus sign."""
    if value is None:
        return Cell(NOTHING)
    return Cell(format(value, pattern).replace("-", MINUS) + suffix, float(value))


def interval(value: Interval | None, pattern: str) -> Cell:
    """Both ends; sorted by the lower one."""
    if value is None:
        return Cell(NOTHING)
    low, high = (number(end, pattern).text for end in value)
    return Cell(f"{low} to {high}", float(value[0]))


def megabytes(value: int | None, pattern: str) -> Cell:
    """Millions of bytes."""
    return number(None if value is None else value / MEGABYTE, pattern)


def policy_name(summary: EntrySummary) -> str:
    """The spec string that ran, and where it comes from if that is not what was asked for."""
    if summary.role != "policy":
        return f"{summary.policy} (reference at the budget of {summary.given})"
    if summary.given not in ("", summary.policy):
        return f"{summary.policy} (matched, from {summary.given})"
    return summary.policy


def points(value: float | None) -> Cell:
    """A difference of shares in points."""
    return Cell(NOTHING) if value is None else Cell(wording.points(value).replace("-", MINUS), value)


def accuracy_cell(summary: EntrySummary) -> Cell:
    """Share of problems solved."""
    return number(summary.accuracy, ".2f")


def agreement_cell(summary: EntrySummary) -> Cell:
    """Responses that equal the uncached run's."""
    return number(summary.agreement, ".0%")


def rows_cell(summary: EntrySummary) -> Cell:
    """Rows computed in a pass."""
    return number(summary.rows_share, ".0%")


def difference_cell(summary: EntrySummary) -> Cell:
    """To the uncached run, in points."""
    difference = None if summary.paired is None else summary.paired.difference
    cell = points(difference)
    return evolve(cell, is_significant=summary.is_significant)


def difference_interval_cell(summary: EntrySummary) -> Cell:
    """Of it."""
    if summary.paired is None:
        return Cell(NOTHING)
    low, high = map(points, summary.paired.interval)
    return Cell(f"{low.text} to {high.text}", low.value)


def p_value_cell(summary: EntrySummary) -> Cell:
    """Of it, corrected."""
    value = summary.corrected_p
    return Cell(NOTHING) if value is None else Cell(wording.p_value(value), value, summary.is_significant)


def speedup_cell(summary: EntrySummary) -> Cell:
    """Over the uncached run."""
    if summary.failure is not None:
        return Cell("failed")
    return number(summary.speedup, ".2f", TIMES)


ACCURACY = (
    Column("problems", "", lambda s: number(s.sequences, "d")),
    Column("accuracy", "accuracy: share of problems solved.", accuracy_cell),
    Column("95 %\ninterval", "Its interval is Wilson's.", lambda s: interval(s.accuracy_interval, ".2f")),
    Column(
        "vs none,\npoints",
        "vs none: accuracy minus the uncached run's, paired by problem, with Tango's score interval; bold where it is "
        "significant.",
        difference_cell,
    ),
    Column("95 %\ninterval", "", difference_interval_cell),
    Column(
        "p, cor-\nrected",
        "p: exact McNemar test, with Holm's correction for the policies of a task and decoder.",
        p_value_cell,
    ),
    Column(
        "same\nanswers",
        "same answers: responses whose every token equals the uncached run's; same tokens: response tokens that do.",
        agreement_cell,
    ),
    Column("same\ntokens", "", lambda s: number(s.token_agreement, ".1%")),
    Column(
        "first\nother",
        "first other: the share of the response before the first token that differs.",
        lambda s: number(s.first_divergence, ".0%"),
    ),
)
COST = (
    Column("tokens/s", "", lambda s: number(s.tokens_per_second, ".1f")),
    Column(
        "speed-up",
        "speed-up: median over problems of the ratio of tokens per second to none, measured in turns, with an interval "
        "from order statistics.",
        speedup_cell,
    ),
    Column("95 %\ninterval", "", lambda s: interval(s.speedup_interval, ".2f")),
    Column(
        "ideal,\nFLOPs",
        "ideal: the speed-up that counted operations, or bytes, alone would allow.",
        lambda s: number(s.flops_speedup, ".2f", TIMES),
    ),
    Column("ideal,\nbytes", "", lambda s: number(s.bytes_speedup, ".2f", TIMES)),
    Column("forward\npasses", "forward passes: a sequence.", lambda s: number(s.forwards, ".1f")),
    Column(
        "rows/\nstep",
        "rows/step: rows computed in a forward pass, of the whole canvas.",
        rows_cell,
    ),
    Column(
        "peak\nMB", "peak: memory of the process (of the device, on a GPU).", lambda s: megabytes(s.peak_bytes, ".0f")
    ),
    Column("cache\nMB", "cache: size of the cached tensors.", lambda s: megabytes(s.cache_bytes, ".1f")),
)
