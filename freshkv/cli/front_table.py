"""The entries of a sweep that are on a Pareto front, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from freshkv.compare.pareto import Candidate, Cost, Standing

#: by each cost, what its column is called
COLUMNS: dict[Cost, str] = {"rows": "rows", "rows a step": "rows/\nstep", "seconds": "speed"}
MARKS: dict[Standing, str] = {"front": "front", "perhaps": "perhaps", "behind": "-"}


def is_sweep(candidates: Sequence[Candidate]) -> bool:
    """Whether one policy or decoder takes part with several options, or in several settings."""
    groups: dict[tuple[str, str, str], set[tuple[str, str, str]]] = {}
    for candidate in candidates:
        summary = candidate.summary
        names = summary.policy.partition(":")[0], summary.decoder.partition(":")[0]
        groups.setdefault((summary.task, *names), set()).add((candidate.setting, summary.policy, summary.decoder))
    return any(len(group) > 1 for group in groups.values())


def front_table(candidates: Sequence[Candidate]) -> Table:
    """Each model and task with the entries on any of its fronts, and how many more may be."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("on the Pareto front", overflow="fold", vertical="bottom")
    for name in ("accu-\nracy", "full\npasses", "rows/\nstep", "tokens\nper s", *(f"{c}" for c in COLUMNS.values())):
        table.add_column(name, justify="right", no_wrap=True)
    several_models = len({candidate.model for candidate in candidates}) > 1
    for (model, task), group in groupby(candidates, key=lambda c: (c.model, c.summary.task)):
        table.add_row(Text(f"{model}, {task}" if several_models else task, style="bold cyan"))
        entries = list(group)
        shown = [candidate for candidate in entries if "front" in candidate.standings.values()]
        for candidate in sorted(shown, key=_cost):
            table.add_row(*_row(candidate))
        perhaps = sum("perhaps" in c.standings.values() for c in entries if c not in shown)
        if perhaps:
            table.add_row(Text(f"  {perhaps} more may be: too few problems to tell", style="dim"))
        table.add_section()
    return table


def explain_fronts() -> str:
    """What the table says, in one paragraph."""
    return (
        "front: no other entry is at least as accurate and at most as costly, and better in one. perhaps: beaten, but "
        "within its 95 % interval. full passes: rows computed for a whole response, in passes over the whole canvas; "
        "the columns at the right are the fronts of accuracy against those rows, rows/step, and tokens per s."
    )


def _cost(candidate: Candidate) -> float:
    from freshkv.compare.pareto import rows_of_response

    return rows_of_response(candidate.summary) or 0.0


def _row(candidate: Candidate) -> list[Text | str]:
    from freshkv.compare.pareto import rows_of_response

    summary = candidate.summary
    numbers = (
        (summary.accuracy, ".2f"),
        (rows_of_response(summary), ".1f"),
        (summary.rows_share, ".0%"),
        (summary.tokens_per_second, ".1f"),
    )
    marks = [MARKS[candidate.standings[cost]] if cost in candidate.standings else "-" for cost in COLUMNS]
    cells = ["-" if value is None else format(value, pattern) for value, pattern in numbers]
    return [Text(f"  {candidate.name}"), *cells, *marks]
