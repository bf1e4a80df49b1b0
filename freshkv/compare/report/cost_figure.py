"""Operations by part, and the speed-up that they would allow beside the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freshkv.compare.report.pareto_figure import Named, error_bar
from freshkv.compare.summary import EntrySummary
from freshkv.core.cost import Cost

#: field of a cost, words, role of its colour
PARTS = (
    ("projections", "projections", "--series-1"),
    ("attention", "attention", "--series-2"),
    ("feed_forward", "feed-forward", "--series-3"),
    ("head", "output head", "--series-4"),
    ("signals", "signals of the policy", "--series-5"),
)
UNITS = ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1, "FLOP"))
LINE = 30  #: pixels of a policy
FRAME = 130  #: pixels above and below


def cost_figures(entries: Sequence[Named]) -> list[dict[str, Any]]:
    """Bars of operations, and marks of speed-ups, an entry a line in both."""
    counted = [(name, summary, summary.cost) for name, summary in entries if summary.cost is not None]
    names = [name for name, *_ in counted]
    summaries = [summary for _, summary, _ in counted]
    return [
        _operations(names, [cost for *_, cost in counted]),
        _speedups(names, summaries),
    ]


def _operations(names: Sequence[str], costs: Sequence[Cost]) -> dict[str, Any]:
    scale, unit = _unit(max((cost.flops for cost in costs), default=0))
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": words,
            "y": list(names),
            "x": [getattr(cost, part) / scale for cost in costs],
            "marker": {"color": role, "line": {"color": "--page", "width": 1}},
            "hovertemplate": f"{words}: %{{x:.3g}} {unit}<extra></extra>",
        }
        for part, words, role in PARTS
        if any(getattr(cost, part) > 0 for cost in costs)
    ]
    title = f"{unit} a response"
    layout = _layout(names, title)
    return {
        "words": f"Operations of a response by part, in {unit}",
        "data": bars,
        "layout": {**layout, "barmode": "stack", "bargap": 0.35},
    }


def _speedups(names: Sequence[str], summaries: Sequence[EntrySummary]) -> dict[str, Any]:
    kinds = (
        ("operations alone would allow", "diamond-open", "--series-3", [s.flops_speedup for s in summaries]),
        ("bytes alone would allow", "square-open", "--series-4", [s.bytes_speedup for s in summaries]),
    )
    ideal = [
        _marks(names, values, words, {"symbol": symbol, "color": role, "size": 10, "line": {"width": 2}})
        for words, symbol, role, values in kinds
    ]
    measured = _marks(
        names, [s.speedup for s in summaries], "measured", {"symbol": "circle", "color": "--series-1", "size": 9}
    )
    bars = [error_bar(s.speedup or 0.0, s.speedup_interval, 1, "--series-1") for s in summaries]
    # one array for all marks: without an interval its ends are the mark itself
    measured["error_x"] = {
        "type": "data",
        "symmetric": False,
        "array": [bar.get("array", [0.0])[0] for bar in bars],
        "arrayminus": [bar.get("arrayminus", [0.0])[0] for bar in bars],
        "color": "--series-1",
        "thickness": 1,
        "width": 3,
    }
    layout = _layout(names, "speed-up over the uncached run")
    unit = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1}
    return {
        "words": "Speed-up over the uncached run: measured, and what operations and bytes alone would allow",
        "data": [*ideal, measured],
        "layout": {**layout, "shapes": [{**unit, "line": {"color": "--soft", "width": 1, "dash": "dot"}}]},
    }


def _marks(names: Sequence[str], values: Sequence[float | None], words: str, marker: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": words,
        "y": list(names),
        "x": list(values),
        "marker": marker,
        "hovertemplate": f"{words}: %{{x:.2f}}x<extra></extra>",
    }


def _layout(names: Sequence[str], title: str) -> dict[str, Any]:
    return {
        "height": FRAME + LINE * max(3, len(names)),
        "margin": {"l": 20, "r": 15, "t": 60, "b": 50},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        "showlegend": True,
        "xaxis": {"title": {"text": title}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }


def _unit(most: float) -> tuple[float, str]:
    """The largest unit of which ``most`` is at least one."""
    return next(((scale, unit) for scale, unit in UNITS if most >= scale), UNITS[-1])
