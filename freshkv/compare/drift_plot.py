"""Drift as heat maps: a page of its own, or with kaleido an image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from attrs import frozen
from torch import Tensor

from freshkv.compare.drift_record import Drift
from freshkv.compare.pareto_plot import check_plot, write_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PANEL_HEIGHT = 300  #: pixels
SMALLEST = 1e-6  #: what is less is drawn as this much
COLOURS = "Cividis"
WRONG = "#d62728"

__all__ = ["check_plot", "draw_drift", "write_drift_plot"]


@frozen(eq=False)
class Panel:
    """One kind of heat map: a line of the plot, with one scale for all policies."""

    title: str
    y: str  #: what its lines are
    values: tuple[Tensor, ...]  #: for each policy float32 [lines, columns]; NaN is left blank


def write_drift_plot(drifts: Sequence[Drift], path: str | Path) -> None:
    """Draw ``drifts`` side by side into ``path``. Raises InputError as ``check_plot``, and ResultsError."""
    check_plot(path)
    write_figure(draw_drift(drifts), Path(path))


def draw_drift(drifts: Sequence[Drift]) -> Figure:
    """A column for each drift; lines: keys, values, hidden states, KL by step and position, and values by layer."""
    from plotly.subplots import make_subplots

    panels = tuple(_panels(drifts))
    titles = [f"{drift.policy}<br>{panel.title}" for panel in panels for drift in drifts]
    height = len(panels) * PANEL_HEIGHT
    figure = make_subplots(
        rows=len(panels), cols=len(drifts), subplot_titles=titles, vertical_spacing=112 / height, shared_yaxes=True
    )
    for row, panel in enumerate(panels, start=1):
        low, high = _range(panel.values)
        figure.update_layout({f"coloraxis{row}": _colour_axis(low, high, 1 - (row - 0.5) / len(panels), len(panels))})
        for column, values in enumerate(panel.values, start=1):
            figure.add_trace(_heat_map(panel, values, f"coloraxis{row}"), row=row, col=column)
            figure.update_yaxes(title_text=panel.y if column == 1 else None, autorange="reversed", row=row, col=column)
            figure.update_xaxes(title_text="step" if panel.y == "layer" else "position", row=row, col=column)
        if panel.title.startswith("logits"):
            for column, drift in enumerate(drifts, start=1):
                figure.add_trace(_wrong_commits(drift), row=row, col=column)
    return figure.update_layout(template="plotly_white", height=height, showlegend=False, margin={"t": 70, "r": 90})


def _panels(drifts: Sequence[Drift]) -> Iterator[Panel]:
    for kind, words in (("keys", "keys"), ("values", "values"), ("hidden", "hidden states")):
        by_position = tuple(_mean(getattr(drift, f"{kind}_cosine"), 1) for drift in drifts)
        yield Panel(f"{words}: 1 - cosine, mean over layers", "step", by_position)
    by_layer = tuple(_mean(drift.values_cosine, 2).transpose(0, 1) for drift in drifts)
    yield Panel("values: 1 - cosine, mean over positions", "layer", by_layer)
    yield Panel("logits: KL from the uncached ones, nats; dots: wrong commits", "step", tuple(d.kl for d in drifts))


def _mean(values: Tensor, axis: int) -> Tensor:
    """Over what is not NaN."""
    return values.nanmean(dim=axis)


def _range(values: Sequence[Tensor]) -> tuple[float, float]:
    """Powers of ten that hold all values."""
    known = torch.cat([each[~each.isnan()] for each in values])
    most = float(known.max()) if known.numel() > 0 else SMALLEST
    return math.log10(SMALLEST), math.ceil(math.log10(max(most, 10 * SMALLEST)))


def _heat_map(panel: Panel, values: Tensor, axis: str) -> dict[str, Any]:
    power = values.clamp(min=SMALLEST).log10()
    columns = "step" if panel.y == "layer" else "position"
    return {
        "type": "heatmap",
        "z": _lists(power),
        "customdata": _lists(values),
        "coloraxis": axis,
        "hoverongaps": False,
        "hovertemplate": f"{panel.y} %{{y}}, {columns} %{{x}}: %{{customdata:.3g}}<extra></extra>",
    }


def _lists(values: Tensor) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in line] for line in values.tolist()]


def _colour_axis(low: float, high: float, middle: float, count: int) -> dict[str, Any]:
    powers = list(range(round(low), round(high) + 1))
    bar = {
        "y": middle,
        "len": 0.8 / count,
        "thickness": 12,
        "tickvals": powers,
        "ticktext": [f"{'≤ ' * (power == powers[0])}1e{power}" if power < 0 else f"{10**power}" for power in powers],
    }
    return {"cmin": low, "cmax": high, "colorscale": COLOURS, "colorbar": bar}


def _wrong_commits(drift: Drift) -> dict[str, Any]:
    places = drift.committed_wrong.nonzero()
    return {
        "type": "scatter",
        "mode": "markers",
        "x": places[:, 1].tolist(),
        "y": places[:, 0].tolist(),
        "marker": {"color": WRONG, "size": 7},
        "hovertemplate": "step %{y}, position %{x}: committed another token than the uncached forward's<extra></extra>",
    }
