"""Drift as the heat maps of the page want it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from freshkv.compare.drift import Drift
from freshkv.compare.experiment import BASELINE
from freshkv.compare.report.payload import pack
from freshkv.compare.report.sources import Source
from freshkv.compare.traces import SavedDrift

LAYERED = {
    "keys_cosine": ("keys: 1 - cosine to the true ones", "1 - cosine"),
    "values_cosine": ("values: 1 - cosine to the true ones", "1 - cosine"),
    "hidden_cosine": ("hidden states: 1 - cosine to the true ones", "1 - cosine"),
    "keys_norm": ("keys: relative norm of the difference", "relative norm"),
    "values_norm": ("values: relative norm of the difference", "relative norm"),
    "hidden_norm": ("hidden states: relative norm of the difference", "relative norm"),
}
FLAT = {
    "kl": ("logits: KL divergence from the uncached ones, nats", "KL, nats"),
    "top1": ("logits: most probable token differs", "differs"),
}


def drift_data(sources: Sequence[Source]) -> dict[str, Any] | None:
    """All runs with their maps packed, and for each kind its words and the top of its scale; None without drift."""
    runs = [(source, saved) for source in sources for saved in sorted(source.drifts, key=_order(source))]
    if not runs:
        return None
    maps = [_maps(saved.drift) for _, saved in runs]
    kinds = {
        name: {"words": words, "short": short, "most": 1 if name == "top1" else _most(each[name] for each in maps)}
        for name, (words, short) in {**LAYERED, **FLAT}.items()
    }
    return {
        "kinds": kinds,
        "start": next((place for place, (_, saved) in enumerate(runs) if saved.entry[0] != BASELINE), 0),
        "runs": [
            {
                "name": _name(source, saved),
                "words": _words(saved.drift),
                "packed": pack({"prompt_length": saved.drift.prompt_length, "maps": _rounded(own)}),
            }
            for (source, saved), own in zip(runs, maps, strict=True)
        ],
    }


def _order(source: Source) -> Callable[[SavedDrift], Any]:
    """Sorts as the experiment has it: problems, then entries."""
    entries = {entry: place for place, entry in enumerate(source.entries)}
    return lambda saved: (source.case_order(saved.case), entries.get(saved.entry, len(entries)))


def _name(source: Source, saved: SavedDrift) -> str:
    task, seed, problem = saved.case
    where = f"{task}, problem {problem}" + f", seed {seed}" * source.several_seeds
    prefix = f"{source.name}: " if source.one_of_several else ""
    return f"{prefix}{source.entry_name(saved.entry)}; {where}"


def _words(drift: Drift) -> str:
    """What the drift came to."""
    summary = drift.summary()
    parted = (
        "The canvas is that of an uncached run throughout."
        if summary.parted_at is None
        else f"The canvas leaves that of an uncached run in step {summary.parted_at + 1}; "
        f"{summary.response_differs} final tokens differ."
    )
    return (
        f"Of {summary.committed} committed tokens, {summary.committed_wrong} were not the most probable ones of the "
        f"uncached forward on the same canvas. Top-1 agreement of predictions: {summary.top1:.1%}. {parted}"
    )


def _maps(drift: Drift) -> dict[str, dict[str, Tensor | None]]:
    """Each kind as float [steps, seq] (mean over layers) and float [steps, layers] (mean over positions)."""
    maps: dict[str, dict[str, Tensor | None]] = {
        name: {"positions": values.mean(dim=1), "layers": values.nanmean(dim=2)}
        for name, values in ((name, getattr(drift, name)) for name in LAYERED)
    }
    return maps | {"kl": {"positions": drift.kl, "layers": None}, "top1": {"positions": 1 - drift.top1, "layers": None}}


def _most(maps: Iterable[dict[str, Tensor | None]]) -> float:
    """The top of a scale that all runs share: nearly the largest value, so that one outlier does not hide the rest."""
    values = torch.cat([values.flatten() for own in maps if (values := own["positions"]) is not None])
    values = values[values.isfinite()]
    top = float(torch.quantile(values[:: 1 + len(values) // 1_000_000], 0.995)) if len(values) > 0 else 0.0
    return top if top > 0 else 1e-6  # an exact run is all zeros


def _rounded(maps: dict[str, dict[str, Tensor | None]]) -> dict[str, dict[str, Any]]:
    """Three significant digits, None for NaN."""
    return {
        name: {side: None if values is None else _numbers(values) for side, values in sides.items()}
        for name, sides in maps.items()
    }


def _numbers(values: Tensor) -> list[list[float | None]]:
    return [[float(f"{value:.3g}") if math.isfinite(value) else None for value in row] for row in values.tolist()]
