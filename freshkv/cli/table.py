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
CACHE = "cache\nMB"
#: terminal columns that the narrowest form of the numbers takes, and that specs have at least
NUMBERS_WIDTH = 58
LEAST_LABEL = 12

Cell = Callable[["EntrySummary"], str]


def _number(value: float | None, pattern: str) -> str:
    return NOTHING if value is None else format(value, pattern)


def _interval(summary: EntrySummary) -> str:
    if summary.accuracy_interval is None:
        return NOTHING
    low, high = summary.accuracy_interval
    return f"{low:.2f}-{high:.2f}"


def _megabytes(value: int | None, digits: int) -> str:
    return _number(None if value is None else value / MEGABYTE, f".{digits}f")


COLUMNS: dict[str, Cell] = {
    "accu-\nracy": lambda s: _number(s.accuracy, ".2f"),
    "95 %\ninterval": _interval,
    "same as\nnone": lambda s: _number(s.agreement, ".0%"),
    "tokens\nper s": lambda s: _number(s.tokens_per_second, ".1f"),
    "speed-\nup": lambda s: "failed" if s.failure is not None else _number(s.speedup, ".2f") + "x" * bool(s.speedup),
    "for-\nwards": lambda s: _number(s.forwards, ".1f").removesuffix(".0"),
    "rows/\nstep": lambda s: _number(s.rows_share, ".0%"),
    "peak\nMB": lambda s: _megabytes(s.peak_bytes, 0),
    CACHE: lambda s: _megabytes(s.cache_bytes, 1),
}


def comparison_table(summaries: Sequence[EntrySummary], console: Console) -> Table:
    """All entries, a section for each task and decoder; as roomy as the console allows."""
    everything, narrower = list(COLUMNS), [name for name in COLUMNS if name != CACHE]
    unlimited = console.options.update(max_width=10_000)
    for names, gap in ((everything, 1), (narrower, 1), (narrower, 0)):
        table = _build(summaries, names, gap, label_width=10_000)
        if console.measure(table, options=unlimited).maximum <= console.width:
            return table
    return _build(summaries, narrower, gap=0, label_width=max(console.width - NUMBERS_WIDTH, LEAST_LABEL))


def _build(summaries: Sequence[EntrySummary], names: Sequence[str], gap: int, label_width: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("policy", overflow="fold", vertical="bottom")
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
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
        "same as none: responses whose every token equals the uncached run's. speed-up: median over problems of the "
        "ratio to none, measured in turns. rows/step: rows computed in a forward pass, of the whole canvas. "
        "peak: memory of the process (of the device, on a GPU)."
    )
