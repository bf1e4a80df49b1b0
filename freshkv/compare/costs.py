"""Costs of sequences: an equal share of their batch's, means, and the speed-up that they would allow."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from freshkv.core.cost import Cost, total_cost

_NAMES = tuple(field.name for field in attrs.fields(Cost))


def shared_cost(cost: Cost, parts: int) -> Cost:
    """One of ``parts`` equal parts, in whole operations and bytes."""
    return Cost(**{name: round(getattr(cost, name) / parts) for name in _NAMES})


def mean_cost(costs: Sequence[Cost | None]) -> Cost | None:
    """The mean of costs; None where one was not counted, or there is none."""
    known = [cost for cost in costs if cost is not None]
    return shared_cost(total_cost(known), len(known)) if known and len(known) == len(costs) else None


def flops_speedup(own: Cost | None, uncached: Cost | None) -> float | None:
    """How much faster a machine would be that does nothing but operations, each in the same time."""
    return None if own is None or uncached is None or own.flops == 0 else uncached.flops / own.flops


def bytes_speedup(own: Cost | None, uncached: Cost | None) -> float | None:
    """The same of one that does nothing but move bytes."""
    return None if own is None or uncached is None or own.bytes_moved == 0 else uncached.bytes_moved / own.bytes_moved
