"""Accuracy against rows computed and against measured time, with intervals, and the front marked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attrs import frozen

from freshkv.compare.pareto import COSTS, Cost, Point, Standing, find_standings, point_of
from freshkv.compare.report.palette import Palette
from freshkv.compare.statistics import Interval
from freshkv.compare.summary import EntrySummary

Named = tuple[str, EntrySummary]  #: what an entry is called in the figure, and the entry
REFERENCE = "x-thin-open"


@frozen
class Axis:
    """What stands on the x axis."""

    cost: Cost
    title: str
    scale: float  #: by which the cost is shown
    unit: str


AXES = (
    Axis("rows", "rows computed, full passes", 1, "passes"),
    Axis("seconds", "milliseconds a token", 1000, "ms a token"),
)


def pareto_figures(entries: Sequence[Named], palette: Palette) -> list[dict[str, Any]]:
    """A figure for each axis."""
    return [_figure(entries, axis, palette) for axis in AXES]


def _figure(entries: Sequence[Named], axis: Axis, palette: Palette) -> dict[str, Any]:
    placed = [(name, s, point) for name, s in entries if (point := point_of(s, axis.cost)) is not None]
    standings = find_standings([point for _, _, point in placed])
    marks = list(zip(placed, standings, strict=True))
    front = sorted(((p.cost, p.accuracy, name) for (name, _, p), standing in marks if standing == "front"))
    return {
        "words": f"Accuracy against {axis.title}. On the front: {', '.join(name for *_, name in front) or 'nothing'}.",
        "data": [
            _line(front, axis),
            *_references(entries, axis),
            *(_mark(name, s, point, standing, axis, palette) for (name, s, point), standing in marks),
        ],
        "layout": {
            "margin": {"l": 60, "r": 15, "t": 35, "b": 50},
            "hovermode": "closest",
            "showlegend": False,
            "xaxis": {"title": {"text": axis.title}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "accuracy"}, "range": [-0.03, 1.12], "tickvals": [0, 0.2, 0.4, 0.6, 0.8, 1]},
        },
    }


def _line(front: Sequence[tuple[float, float, str]], axis: Axis) -> dict[str, Any]:
    """The front: from each of its entries the best accuracy for that cost."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [axis.scale * cost for cost, _, _ in front],
        "y": [accuracy for _, accuracy, _ in front],
        "line": {"color": "--soft", "width": 1, "dash": "dot", "shape": "hv"},
        "hoverinfo": "skip",
    }


def _mark(
    name: str, summary: EntrySummary, point: Point, standing: Standing, axis: Axis, palette: Palette
) -> dict[str, Any]:
    """One entry: filled on the front, open where it may be on it, faint behind it."""
    symbol, colour = palette.symbol(summary.decoder), palette.colour(summary.policy)
    on_front = standing == "front"
    return {
        "type": "scatter",
        "mode": "markers+text" if on_front else "markers",
        "x": [axis.scale * point.cost],
        "y": [point.accuracy],
        "name": name,
        "meta": standing,
        "opacity": 0.45 if standing == "behind" else 1,
        "text": [summary.policy],
        "textposition": "top center",
        "cliponaxis": False,
        "error_y": error_bar(point.accuracy, point.accuracy_interval, 1, colour),
        "error_x": error_bar(point.cost, point.cost_interval, axis.scale, colour),
        "marker": {
            "symbol": symbol if on_front else f"{symbol}-open",
            "size": 11,
            "color": colour,
            "line": {"width": 2, "color": colour},
        },
        "hovertemplate": f"accuracy %{{y:.2f}}<br>%{{x:.3g}} {axis.unit}",
    }


def _references(entries: Iterable[Named], axis: Axis) -> list[dict[str, Any]]:
    """Oracles and random policies, which do not compete for the front."""
    found = [
        (name, axis.scale * cost, s.accuracy)
        for name, s in entries
        if s.role != "policy" and s.accuracy is not None and (cost := COSTS[axis.cost](s)) is not None
    ]
    if not found:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [cost for _, cost, _ in found],
            "y": [accuracy for *_, accuracy in found],
            "text": [name for name, *_ in found],
            "marker": {"symbol": REFERENCE, "size": 8, "color": "--soft", "line": {"width": 2, "color": "--soft"}},
            "hovertemplate": f"%{{text}}<br>accuracy %{{y:.2f}}<br>%{{x:.3g}} {axis.unit}<extra>reference</extra>",
        }
    ]


def error_bar(value: float, interval: Interval | None, scale: float, colour: str) -> dict[str, Any]:
    """Plotly's error bar of one mark, from the ends of its interval."""
    if interval is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * max(0.0, interval[1] - value)],
        "arrayminus": [scale * max(0.0, value - interval[0])],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }
