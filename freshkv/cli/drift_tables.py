"""Drifts as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from freshkv.cli.table import fold_spec

if TYPE_CHECKING:
    from freshkv.compare.drift import Deviation, DriftSummary

MOST_LAYERS = 12  #: lines; of more layers, some are shown
NOTHING = "-"
LABEL_WIDTH = 16  #: characters of a line of a spec, where it can be broken
COLUMNS = ("keys", "values", "hidden\nstates")


def overview_table(summaries: Sequence[DriftSummary]) -> Table:
    """A line for each policy: what its caches came to, and what reached the tokens."""
    table = _table("policy")
    for head in ("rows", *COLUMNS, "KL", "top-1", "wrong", "other\nfrom", "at\nend"):
        table.add_column(head, justify="right", no_wrap=True)
    for summary in summaries:
        table.add_row(
            Text(fold_spec(summary.policy, LABEL_WIDTH)),
            f"{summary.rows_share:.0%}",
            *_cosines(summary.overall),
            small(summary.kl),
            f"{summary.top1:.1%}".replace(".0%", "%"),
            f"{summary.committed_wrong}/{summary.committed}",
            NOTHING if summary.parted_at is None else str(summary.parted_at + 1),
            str(summary.response_differs),
        )
    return table


def detail_table(summary: DriftSummary) -> Table:
    """Where the drift of one policy is: by layer, by region, by age."""
    table = _table(fold_spec(summary.policy, 2 * LABEL_WIDTH))
    for head in ("places", *COLUMNS, "keys\nnorm", "values\nnorm", "hidden\nnorm"):
        table.add_column(head, justify="right", no_wrap=True)
    total = summary.overall.places
    for title, parts in _sections(summary):
        table.add_row(Text(title, style="bold cyan"))
        for name, part in parts:
            share = f"{part.places / total:.0%}" if total > 0 else NOTHING
            norms = (part.keys_norm, part.values_norm, part.hidden_norm)
            table.add_row(f"  {name}", share, *_cosines(part), *map(small, norms))
        table.add_section()
    return table


def explain_tables() -> str:
    """What the columns mean, in one paragraph."""
    return (
        "rows: refreshed in a step, of the canvas. keys, values, hidden states: mean of 1 - cosine to those of an "
        "uncached forward on the same canvas; norm: of the difference, relative. KL (nats), top-1: of predicted "
        "positions, from the uncached logits. wrong: committed tokens that are not the uncached forward's first choice "
        "on that canvas. other from, at end: first step, from 1, after which the canvas is not that of an independent "
        "uncached run, and final tokens that differ."
    )


def small(value: float) -> str:
    """Two digits, of any size: ``0.024``, ``1.3e-5``; ``-`` where there is no number."""
    if math.isnan(value):
        return NOTHING
    if value < 1e-12:
        return "0"
    return f"{value:.2g}" if value >= 0.001 else f"{value:.1e}".replace("e-0", "e-")


def _sections(summary: DriftSummary) -> Iterator[tuple[str, list[tuple[str, Deviation]]]]:
    layers = summary.by_layer
    shown = _spread(len(layers))
    some = "" if len(shown) == len(layers) else f", {len(shown)} of {len(layers)}"
    yield f"layer{some}", [(str(layer), layers[layer]) for layer in shown]
    yield "region", list(summary.by_region.items())
    yield "steps since refreshed", list(summary.by_age.items())


def _spread(count: int) -> list[int]:
    """Layers to show: all, or some from the first to the last."""
    if count <= MOST_LAYERS:
        return list(range(count))
    return sorted({round(place * (count - 1) / (MOST_LAYERS - 1)) for place in range(MOST_LAYERS)})


def _cosines(part: Deviation) -> tuple[str, str, str]:
    return small(part.keys_cosine), small(part.values_cosine), small(part.hidden_cosine)


def _table(label: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.add_column(label, no_wrap=True, vertical="bottom")
    return table
