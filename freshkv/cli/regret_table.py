"""The table of regret: each policy between random rows and an oracle."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from freshkv.cli.table import NOTHING, fold_spec

if TYPE_CHECKING:
    from freshkv.compare import Regret
    from freshkv.compare.regret import Scale

#: terminal columns that the numbers leave of 80
LABEL_WIDTH = 16


def regret_table(regrets: Sequence[Regret]) -> Table:
    """All policies that ran beside both references, a section for each task and decoder."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("policy", overflow="fold", vertical="bottom")
    for name in ("rows/\nstep", *_scale_columns("tokens"), *_scale_columns("solved")):
        table.add_column(name, justify="right", no_wrap=True)
    for (task, decoder), group in groupby(regrets, key=lambda each: (each.task, each.decoder)):
        table.add_row(Text(f"{task}\n{decoder}", style="bold cyan"))
        for regret in group:
            numbers = (f"{regret.rows.own:.0%}", *_cells(regret.tokens), *_cells(regret.accuracy))
            table.add_row(Text(textwrap.indent(fold_spec(regret.policy, LABEL_WIDTH), "  ")), *numbers)
        table.add_section()
    return table


def _scale_columns(measure: str) -> tuple[str, ...]:
    return f"{measure}\nrandom", "\nown", "\noracle", "\nplace"


def _cells(scale: Scale) -> tuple[str, ...]:
    place = NOTHING if scale.place is None else f"{scale.place:.2f}"
    return f"{scale.random:.2f}", f"{scale.own:.2f}", f"{scale.oracle:.2f}", place


def explain_regret() -> str:
    """What the columns mean, in one paragraph."""
    return (
        "random, oracle: policies that compute as many rows (rows/step), drawn at random and chosen by true drift. "
        "tokens: share of response tokens equal to the uncached run's; solved: share of problems. place: 0 as good as "
        "random, 1 as good as the oracle; - where the oracle is not better."
    )
