"""How far rows have moved since they were cached: what a layer-wise policy learns before it chooses a layer's rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.division import division_of
from freshkv.core.network import Network
from freshkv.core.policy import Probes
from freshkv.core.rows import RowSet
from freshkv.core.store import RowStore

#: root mean square of a hidden state below which its relative change is not divided by less
SMALLEST_SIZE = 1e-6


@frozen(eq=False)
class Probing:
    """Which rows are measured before a layer chooses its own, and how. See ``LayerwisePolicy``."""

    rows: Callable[[int], RowSet | None]  #: asked in every layer, from the first to the last
    of: Probes = "values"
    stores: bool = True  #: whether probed values replace the cached ones

    def measure(self, layer: int, hidden: Tensor, store: RowStore, network: Network) -> tuple[Tensor, RowSet | None]:
        """How far the probed rows of ``hidden`` [batch * seq, width] have moved, float32 [batch * seq], NaN elsewhere.

        And the rows whose values were computed for it, if any were.
        """
        movement = not_measured(hidden)
        probe = self.rows(layer)
        if probe is None or probe.count == 0:
            return movement, None
        if self.of == "hidden_states":
            now, then = probe.take(hidden).float(), probe.take(store.inputs(layer)).float()
            size = then.square().mean(dim=1).sqrt().clamp(min=SMALLEST_SIZE)
            probe.put(movement, (now - then).abs().mean(dim=1) / size)
            return movement, None
        fresh = network.project_values(layer, probe.take(hidden))
        cached = store.values_of(layer, probe)
        probe.put(movement, 1 - division_of(network).cosine(fresh.flatten(1).float(), cached.flatten(1).float()))
        if self.stores:
            store.write_values(layer, probe, fresh)
        return movement, probe


def not_measured(hidden: Tensor) -> Tensor:
    """NaN for each row of ``hidden`` [rows, width], float32 [rows]."""
    return torch.full((hidden.shape[0],), torch.nan, device=hidden.device)
