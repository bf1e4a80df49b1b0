"""A drift in a few numbers: by layer, by region, by age."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs
import torch
from attrs import frozen
from torch import Tensor

if TYPE_CHECKING:
    from freshkv.compare.drift_record import Drift

#: (words, fewest, most) steps since a row was last refreshed in a layer; 0: in this step
AGES = (("0", 0, 0), ("1", 1, 1), ("2-3", 2, 3), ("4-7", 4, 7), ("8-15", 8, 15), ("16+", 16, None))


@frozen(kw_only=True)
class Deviation:
    """Means over some places (step, layer, position) of what ``Drift`` holds for each."""

    places: int  #: how many there are
    keys_cosine: float  #: mean of 1 - cosine; NaN where there is no place, as in all that follow
    values_cosine: float
    hidden_cosine: float
    keys_norm: float  #: mean relative norm of the difference
    values_norm: float
    hidden_norm: float


_MEANS = tuple(each.name for each in attrs.fields(Deviation) if each.name != "places")


@frozen(kw_only=True)
class DriftSummary:
    """What a drift comes to. Shares and means are over all steps of the run, padding left out."""

    policy: str
    decoder: str
    steps: int
    rows_share: float  #: rows refreshed, mean over steps and layers, of the valid rows of the canvas
    overall: Deviation
    by_layer: tuple[Deviation, ...]
    by_region: Mapping[str, Deviation]  #: prompt, decided, block, suffix
    by_age: Mapping[str, Deviation]  #: steps since the row was refreshed in that layer, see ``AGES``
    kl: float  #: mean KL(uncached || run) of predicted positions, nats
    top1: float  #: share of predicted positions with the uncached forward's most probable token
    committed: int  #: positions that were committed, over all steps
    committed_wrong: int  #: of them, those whose token is not the uncached forward's most probable one at that step
    parted_at: int | None  #: first step, from 0, after which the canvas is not that of an uncached run; None: never
    response_differs: int  #: response positions whose final token is not that of the uncached run

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, as JSON holds them; NaN becomes None."""
        plain: dict[str, Any] = _without_nan(attrs.asdict(self))
        return plain


def summarize_drift(drift: Drift, names: tuple[str, ...]) -> DriftSummary:
    """What ``Drift.summary`` returns; ``names`` are the regions to show."""
    is_valid = ~drift.is_region("padding")[:, None].expand_as(drift.refreshed)
    cached = ~drift.keys_cosine.isnan()
    age = ages(drift.refreshed)
    predicted = ~drift.top1.isnan()
    return DriftSummary(
        policy=drift.policy,
        decoder=drift.decoder,
        steps=drift.steps,
        rows_share=float(drift.refreshed[is_valid].float().mean()),
        overall=_deviation(drift, cached),
        by_layer=tuple(_deviation(drift, cached & _only(layer, drift)) for layer in range(drift.layers)),
        by_region={name: _deviation(drift, cached & drift.is_region(name)[:, None]) for name in names},
        by_age={
            words: _deviation(drift, cached & (age >= fewest) & (age <= (drift.steps if most is None else most)))
            for words, fewest, most in AGES
        },
        kl=float(drift.kl[predicted].mean()),
        top1=float(drift.top1[predicted].mean()),
        committed=int(drift.committed.sum()),
        committed_wrong=int(drift.committed_wrong.sum()),
        parted_at=drift.parted_at,
        response_differs=drift.response_differs,
    )


def ages(refreshed: Tensor) -> Tensor:
    """long [steps, layers, seq]: steps since a row was last refreshed in a layer, 0 in the step itself."""
    number = torch.arange(len(refreshed))[:, None, None].expand_as(refreshed)
    return number - torch.where(refreshed, number, 0).cummax(dim=0).values


def _only(layer: int, drift: Drift) -> Tensor:
    return (torch.arange(drift.layers) == layer)[None, :, None]


def _deviation(drift: Drift, places: Tensor) -> Deviation:
    """Over ``places``, bool [steps, layers, seq]."""
    means = {name: float(getattr(drift, name)[places].double().mean()) for name in _MEANS}
    return Deviation(places=int(places.sum()), **means)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
