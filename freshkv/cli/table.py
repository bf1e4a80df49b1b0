"""The table of a comparison."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from freshkv.compare import EntrySummary

NOTHING = "-"
MEGABYTE = 1e6
#: what specs have at least, in terminal columns
LEAST_LABEL = 12
UNLIMITED = 10_000

Cell = Callable[["EntrySummary"], str]


def _number(value: float | None, pattern: str) -> str:
    return NOTHING if value is None else format(value, pattern)


def _interval(value: tuple[float, float] | None, pattern: str) -> str:
    return NOTHING if value is None else f"{value[0]:{pattern}}-{value[1]:{pattern}}"


def _difference(summary: EntrySummary) -> str:
    from freshkv.compare.wording import points

    return NOTHING if summary.paired is None else points(summary.paired.difference)


def _difference_interval(summary: EntrySummary) -> str:
    from freshkv.compare.wording import points

    return NOTHING if summary.paired is None else ",".join(map(points, summary.paired.interval))


def _p_value(summary: EntrySummary) -> str:
    from freshkv.compare.wording import p_value

    return p_value(summary.corrected_p)


def _speedup(summary: EntrySummary) -> str:
    if summary.failure is not None:
        return "failed"
    return _number(summary.speedup, ".2f") + "x" * (summary.speedup is not None)


def _megabytes(value: int | None, digits: int) -> str:
    return _number(None if value is None else value / MEGABYTE, f".{digits}f")


COLUMNS: dict[str, Cell] = {
    "accu-\nracy": lambda s: _number(s.accuracy, ".2f"),
    "95 %\ninterval": lambda s: _interval(s.accuracy_interval, ".2f"),
    "vs\nnone": _difference,
    "95 %\ninterval ": _difference_interval,
    "p": _p_value,
    "same as\nnone": lambda s: _number(s.agreement, ".0%"),
    "tokens\nper s": lambda s: _number(s.tokens_per_second, ".1f"),
    "speed-\nup": _speedup,
    "95 %\ninterval  ": lambda s: _interval(s.speedup_interval, ".2f"),
    "ideal\nFLOPs": lambda s: _number(s.flops_speedup, ".2f") + "x" * (s.flops_speedup is not None),
    "for-\nwards": lambda s: _number(s.forwards, ".1f").removesuffix(".0"),
    "rows/\nstep": lambda s: _number(s.rows_share, ".0%"),
    "peak\nMB": lambda s: _megabytes(s.peak_bytes, 0),
    "cache\nMB": lambda s: _megabytes(s.cache_bytes, 1),
}
#: left out one after the other where the screen is too narrow; ``EntrySummary`` holds them all
SPARE = ("cache\nMB", "peak\nMB", "ideal\nFLOPs", "95 %\ninterval", "tokens\nper s")


def comparison_table(summaries: Sequence[EntrySummary], console: Console) -> Table:
    """All policies, a section for each task and decoder, with as many columns as the console has room for."""
    policies = [summary for summary in summaries if summary.role == "policy"]
    names = list(COLUMNS)
    for spare in (None, *SPARE):
        names = [name for name in names if name != spare]
        table = _build(policies, names, gap=1, label_width=UNLIMITED)
        if _width(table, console) <= console.width:
            return table
    numbers = _width(_build(policies, names, gap=0, label_width=LEAST_LABEL), console) - LEAST_LABEL
    return _build(policies, names, gap=0, label_width=max(console.width - numbers, LEAST_LABEL))


def _width(table: Table, console: Console) -> int:
    """Terminal columns that the table would like to have."""
    return console.measure(table, options=console.options.update(max_width=UNLIMITED)).maximum


def _build(summaries: Sequence[EntrySummary], names: Sequence[str], gap: int, label_width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("policy", overflow="fold", vertical="bottom")
    for name in names:
        table.add_column(name.rstrip(), justify="right", no_wrap=True)
    several_decoders = len({summary.decoder for summary in summaries}) > 1
    for (task, decoder), group in groupby(summaries, key=lambda s: (s.task, s.decoder)):
        title = f"{task}\n{fold_spec(decoder, label_width)}" if several_decoders else task
        table.add_row(Text(title, style="bold cyan"))
        for summary in group:
            label = textwrap.indent(fold_spec(summary.policy, label_width - 2), "  ")
            table.add_row(Text(label), *(COLUMNS[name](summary) for name in names))
        table.add_section()
    return table


def fold_spec(spec: str, width: int) -> str:
    """``spec`` in lines of at most ``width`` where possible, broken behind a colon or comma."""
    first, *others = re.findall(r"[^:,]+[:,]?", spec)
    lines = [first]
    for part in others:
        if len(lines[-1] + part) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(lines)


def explain_columns() -> str:
    """What the columns mean, in one paragraph."""
    return (
        "vs none: accuracy minus the uncached run's, in points, paired by problem; p: exact McNemar test of it, "
        "corrected for the policies of a section. same as none: responses whose every token equals the uncached run's. "
        "speed-up: median over problems of the ratio to none, measured in turns. rows/step: rows computed in a "
        "forward pass, of the whole canvas. A wide screen also shows tokens per s, memory, the interval of accuracy, "
        "and the speed-up that the operations saved would allow (ideal)."
    )
