"""The sections of the page that hold figures: what they show, what is said of it, which menus lead to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from attrs import frozen

from freshkv.compare.report.cost_figure import cost_figures
from freshkv.compare.report.palette import Palette
from freshkv.compare.report.pareto_figure import Named, pareto_figures
from freshkv.compare.report.sources import Source
from freshkv.compare.summary import EntrySummary

Figure = dict[str, Any]
ALL = ""  #: value of a menu that leaves nothing out


@frozen(kw_only=True)
class Menu:
    """What a section lets one choose."""

    title: str
    choices: tuple[tuple[str, str], ...]  #: value and words


@frozen(kw_only=True)
class FigureSection:
    """Figures that follow the same menus."""

    id: str
    title: str
    words: str
    captions: tuple[str, ...]  #: of each figure
    menus: tuple[Menu, ...]
    palette: Palette | None  #: None: the figures have legends of their own
    data: Mapping[str, Sequence[Figure]]  #: chosen values as a JSON list -> a figure for each caption


def figure_sections(sources: Sequence[Source]) -> list[FigureSection]:
    """Everything that is drawn from summaries."""
    competitors = [s for source in sources for s in source.summaries if s.role == "policy"]
    palette = Palette([s.policy for s in competitors], [s.decoder for s in competitors])
    menus = _menus(sources)
    return [
        FigureSection(
            id="pareto",
            title="Accuracy against cost",
            words=(
                "Up and to the left is better. Filled marks are on the Pareto front, which the dotted line joins: "
                "nothing else is at least as good in both, and better in one. Open marks may be on it: nothing else is "
                "better beyond doubt. Faint marks are clearly behind. Bars are 95 % intervals. Crosses are references, "
                "which do not compete."
            ),
            captions=(
                "Accuracy against rows computed for a response: the same on every machine. A full pass is as many rows "
                "as the canvas has.",
                "Accuracy against measured time, on the machine of the experiment.",
            ),
            menus=menus,
            palette=palette,
            data=_for_all(sources, menus, lambda entries: pareto_figures(entries, palette)),
        ),
        FigureSection(
            id="cost",
            title="Where the work goes",
            words=(
                "Operations and bytes are counted, not measured: they are the same on every machine. Where the "
                "measured speed-up stays below what both would allow, time goes elsewhere: into choosing rows, small "
                "kernels, the decoder."
            ),
            captions=(
                "Operations of a whole response by part, mean over problems.",
                "Speed-up with its 95 % interval, beside what operations and bytes alone would allow.",
            ),
            menus=menus,
            palette=None,
            data=_for_all(sources, menus, cost_figures),
        ),
    ]


def _menus(sources: Sequence[Source]) -> tuple[Menu, ...]:
    models = dict.fromkeys(source.model for source in sources)
    tasks = dict.fromkeys(task for source in sources for task in source.tasks)
    decoders = dict.fromkeys(decoder for source in sources for decoder in source.decoders)
    everything = ((ALL, "all"),) if len(decoders) > 1 else ()
    return (
        Menu(title="Model", choices=tuple((model, model) for model in models)),
        Menu(title="Task", choices=tuple((task, task) for task in tasks)),
        Menu(title="Decoder", choices=(*everything, *((decoder, decoder) for decoder in decoders))),
    )


def _for_all(
    sources: Sequence[Source], menus: Sequence[Menu], build: Callable[[list[Named]], list[Figure]]
) -> dict[str, list[Figure]]:
    """The figures of every combination of choices."""
    figures = {}
    for model, task, decoder in product(*([value for value, _ in menu.choices] for menu in menus)):
        entries = [
            (_name(source, summary, by_decoder=decoder == ALL), summary)
            for source in sources
            if source.model == model
            for summary in source.summaries
            if summary.task == task and decoder in (ALL, summary.decoder)
        ]
        # as JSON.stringify writes it: the key that the page looks for
        figures[json.dumps([model, task, decoder], separators=(",", ":"), ensure_ascii=False)] = build(entries)
    return figures


def _name(source: Source, summary: EntrySummary, *, by_decoder: bool) -> str:
    name = f"{summary.policy} with {summary.decoder}" if by_decoder else summary.policy
    return f"{name}, {source.setting}" if source.setting else name
