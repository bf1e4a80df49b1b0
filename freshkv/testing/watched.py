"""A network that counts the rows that pass through it."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from freshkv.core.division import Division, division_of
from freshkv.core.network import Network, NetworkSpec


class WatchedNetwork:
    """Hands every call to ``network`` and counts its rows, by method and layer. ``rows.clear()`` starts anew."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.rows: Counter[tuple[str, int]] = Counter()  #: (method, layer) to rows; layer -1 where there is none

    def by_layer(self, method: str) -> tuple[int, ...]:
        """Rows that passed through ``method`` in each layer."""
        return tuple(self.rows[method, layer] for layer in range(self.network_spec.layers))

    @property
    def network_spec(self) -> NetworkSpec:
        """See ``Network``."""
        return self.network.network_spec

    @property
    def division(self) -> Division:
        """See ``Network``."""
        return division_of(self.network)

    @property
    def device(self) -> torch.device:
        """See ``Network``."""
        return self.network.device

    @property
    def dtype(self) -> torch.dtype:
        """See ``Network``."""
        return self.network.dtype

    def embed_rows(self, tokens: Tensor) -> Tensor:
        """See ``Network``."""
        return self.network.embed_rows(self._count("embed_rows", -1, tokens))

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See ``Network``."""
        return self.network.rotary(positions)

    def project(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network``."""
        return self.network.project(layer, self._count("project", layer, hidden), rotary)

    def project_values(self, layer: int, hidden: Tensor) -> Tensor:
        """See ``Network``."""
        return self.network.project_values(layer, self._count("project_values", layer, hidden))

    def attention_output(self, layer: int, attended: Tensor) -> Tensor:
        """See ``Network``."""
        return self.network.attention_output(layer, self._count("attention_output", layer, attended))

    def feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
        """See ``Network``."""
        return self.network.feed_forward(layer, self._count("feed_forward", layer, hidden))

    def logits(self, hidden: Tensor) -> Tensor:
        """See ``Network``."""
        return self.network.logits(self._count("logits", -1, hidden))

    def _count(self, method: str, layer: int, rows: Tensor) -> Tensor:
        self.rows[method, layer] += rows.shape[0]
        return rows
