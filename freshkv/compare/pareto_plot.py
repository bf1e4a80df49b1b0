"""The Pareto fronts as a picture: a page of its own, or with kaleido an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freshkv.compare.pareto import COSTS, Candidate, Cost, Point, Standing, point_of
from freshkv.core.errors import InputError, ResultsError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PAGE = (".html", ".htm")
IMAGES = (".png", ".svg", ".pdf")
TITLES: dict[Cost, str] = {
    "rows": "rows computed for a response, in full passes",
    "rows a step": "rows computed in a step, share of the canvas",
    "seconds": "seconds a token",
}
#: of markers: on the front filled and dark, perhaps on it open, behind it faint
LOOKS: dict[Standing, dict[str, Any]] = {
    "front": {"name": "on the front", "symbol": "circle", "color": "#00695c", "size": 11},
    "perhaps": {"name": "perhaps on the front", "symbol": "circle-open", "color": "#00695c", "size": 9},
    "behind": {"name": "clearly behind", "symbol": "x-thin-open", "color": "#8a8a8a", "size": 8},
}
PANEL_HEIGHT = 420  #: pixels


def check_plot(path: str | Path) -> None:
    """Raise InputError, before any work, if a plot cannot be written to ``path``."""
    path = Path(path)
    if path.suffix.lower() not in PAGE + IMAGES:
        raise InputError(f"{path} is no plot by its name; expected one that ends with {', '.join(PAGE[:1] + IMAGES)}.")
    if find_spec("plotly") is None:
        raise InputError("Plots are drawn by plotly, which is not installed: pip install 'freshkv[report]'.")
    if path.suffix.lower() in IMAGES and find_spec("kaleido") is None:
        raise InputError(
            "Images are drawn by kaleido, which is not installed: pip install kaleido. A plot that ends with .html "
            "needs nothing else."
        )


def write_plot(candidates: Sequence[Candidate], path: str | Path) -> None:
    """Draw all fronts into ``path``. Raises InputError as ``check_plot``, and ResultsError if it cannot be written."""
    path = Path(path)
    check_plot(path)
    write_figure(draw(candidates), path)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure of plotly's where ``check_plot`` allowed it. Raises ResultsError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in PAGE:
            path.write_text(figure.to_html(include_plotlyjs=True), encoding="utf-8")
        else:
            figure.write_image(path)
    except OSError as error:
        raise ResultsError(f"Cannot write the plot {path}: {error.strerror}. The results are kept.") from error
    except Exception as error:  # kaleido and the browser that it needs raise several types
        raise ResultsError(f"The plot {path} cannot be drawn ({error}); try one that ends with .html.") from error


def draw(candidates: Sequence[Candidate]) -> Figure:
    """A row of panels for each model and task, one for each cost."""
    from plotly.subplots import make_subplots

    groups = [(key, list(group)) for key, group in groupby(candidates, key=lambda c: (c.model, c.summary.task))]
    costs = list(COSTS)
    titles = [f"{model}, {task}" if cost == costs[0] else "" for (model, task), _ in groups for cost in costs]
    figure = make_subplots(rows=len(groups), cols=len(costs), subplot_titles=titles, shared_yaxes=True)
    shown: set[str] = set()
    for row, (_, group) in enumerate(groups, start=1):
        for column, cost in enumerate(costs, start=1):
            for trace in _traces(group, cost):
                trace["showlegend"] = trace["name"] not in shown
                shown.add(trace["name"])
                figure.add_trace(trace, row=row, col=column)
            figure.update_xaxes(title_text=TITLES[cost], rangemode="tozero", row=row, col=column)
        figure.update_yaxes(title_text="accuracy", range=[-0.03, 1.05], row=row, col=1)
    figure.update_layout(
        template="plotly_white", height=PANEL_HEIGHT * len(groups) + 80, legend={"orientation": "h", "y": -0.12}
    )
    return figure


def _traces(group: Sequence[Candidate], cost: Cost) -> Iterator[dict[str, Any]]:
    """The line of the front, then the entries by their standing."""
    placed = [
        (candidate, point, candidate.standings[cost])
        for candidate in group
        if (point := point_of(candidate.summary, cost)) is not None
    ]
    front = sorted((p.cost, p.accuracy) for _, p, standing in placed if standing == "front")
    yield {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [place[0] for place in front],
        "y": [place[1] for place in front],
        "line": {"color": LOOKS["front"]["color"], "width": 1, "dash": "dot", "shape": "hv"},
        "hoverinfo": "skip",
    }
    for standing, look in LOOKS.items():
        chosen = [(candidate, point) for candidate, point, its in placed if its == standing]
        if chosen:
            yield _marks([c.name for c, _ in chosen], [p for _, p in chosen], look)


def _marks(names: Sequence[str], points: Sequence[Point], look: dict[str, Any]) -> dict[str, Any]:
    marker = {**look, "line": {"width": 2, "color": look["color"]}}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": marker.pop("name"),
        "legendgroup": look["name"],
        "x": [point.cost for point in points],
        "y": [point.accuracy for point in points],
        "text": list(names),
        "marker": marker,
        "error_y": _bars([(p.accuracy, p.accuracy_interval) for p in points], look["color"]),
        "error_x": _bars([(p.cost, p.cost_interval) for p in points], look["color"]),
        "hovertemplate": "%{text}<br>accuracy %{y:.2f}<br>%{x:.4g}<extra></extra>",
    }


def _bars(values: Sequence[tuple[float, tuple[float, float] | None]], color: str) -> dict[str, Any]:
    """Error bars from values and the ends of their intervals."""
    ends = [(value, (value, value) if interval is None else interval) for value, interval in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for value, (_, high) in ends],
        "arrayminus": [max(0.0, value - low) for value, (low, _) in ends],
        "color": color,
        "thickness": 0.8,
        "width": 2,
    }
