"""A slow executor that is right by inspection: the oracle of the tests.

One row at a time, no tensor of a batch, plain softmax, dictionaries for caches. It follows the definition: in layer l
the rows of R[l] are computed from their current input and their keys and values replace the cached ones; each of their
queries attends to the keys and values of all visible rows; any other row adds its cached outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from freshkv.core.network import Network

Place = tuple[int, int, int]  #: layer, sequence, position

#: (layer, movement [batch, seq]) to rows, bool [batch, seq]
ChooseRows = Callable[[int, Tensor], Tensor]


class NaiveExecutor:
    """Steps over a canvas with an arbitrary set of refreshed rows in every layer. ``is_valid`` bool [batch, seq]."""

    def __init__(self, network: Network, is_valid: Tensor) -> None:
        self.network = network
        self.spec = network.network_spec
        self.is_valid = is_valid
        self.keys: dict[Place, Tensor] = {}
        self.values: dict[Place, Tensor] = {}
        self.attention: dict[Place, Tensor] = {}
        self.feed_forward: dict[Place, Tensor] = {}

    @torch.no_grad()
    def step(
        self,
        tokens: Tensor,
        rows: Sequence[Tensor] | ChooseRows,
        *,
        visible: Tensor | None = None,
        probe: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states, [batch, seq, width], of all rows, carried.

        ``rows`` gives R[l], bool [batch, seq], for each layer, or chooses it from the movement of the probed rows.
        """
        batch, seq = tokens.shape
        hidden = {(b, i): self._embed(tokens[b, i]) for b in range(batch) for i in range(seq)}
        seen = self.is_valid if visible is None else (visible & self.is_valid)
        for layer in range(self.spec.layers):
            movement = self._probe(layer, hidden, tokens.shape, probe)
            chosen = rows(layer, movement) if callable(rows) else rows[layer]
            refreshed = [place for place in hidden if chosen[place]]
            # all keys and values first: a query of this layer sees the fresh ones of its neighbours
            queries = {place: self._project(layer, place, hidden[place]) for place in refreshed}
            for b, i in refreshed:
                attended = self._attend(layer, b, queries[b, i], seen)
                self.attention[layer, b, i] = self.network.attention_output(layer, attended[None])[0]
            for (b, i), state in hidden.items():
                hidden[b, i] = state + self.attention[layer, b, i]
            for b, i in refreshed:
                self.feed_forward[layer, b, i] = self.network.feed_forward(layer, hidden[b, i][None])[0]
            for (b, i), state in hidden.items():
                hidden[b, i] = state + self.feed_forward[layer, b, i]
        return torch.stack([torch.stack([hidden[b, i] for i in range(seq)]) for b in range(batch)])

    def _embed(self, token: Tensor) -> Tensor:
        return self.network.embed_rows(token[None])[0]

    def _rotary(self, sequence: int, position: int) -> tuple[Tensor, Tensor]:
        before = int(self.is_valid[sequence, :position].sum())
        return self.network.rotary(torch.tensor([before], device=self.is_valid.device))

    def _project(self, layer: int, place: tuple[int, int], state: Tensor) -> Tensor:
        query, key, value = self.network.project(layer, state[None], self._rotary(*place))
        self.keys[(layer, *place)] = key[0]
        self.values[(layer, *place)] = value[0]
        return query[0]

    def _probe(
        self, layer: int, hidden: dict[tuple[int, int], Tensor], shape: torch.Size, probe: Tensor | None
    ) -> Tensor:
        movement = torch.full(shape, float("nan"))
        if probe is None:
            return movement
        for place, state in hidden.items():
            if probe[place]:
                fresh = self.network.project_values(layer, state[None])[0]
                old, new = self.values[(layer, *place)].flatten().float(), fresh.flatten().float()
                movement[place] = 1 - (old @ new) / (old.norm() * new.norm())
                self.values[(layer, *place)] = fresh
        return movement

    def _attend(self, layer: int, sequence: int, query: Tensor, seen: Tensor) -> Tensor:
        """One query [heads, head_width] over all visible rows of its sequence: [heads, head_width]."""
        places = [i for i in range(seen.shape[1]) if seen[sequence, i]]
        keys = torch.stack([self.keys[layer, sequence, i] for i in places])  # [visible, kv_heads, head_width]
        values = torch.stack([self.values[layer, sequence, i] for i in places])
        group = self.spec.heads // self.spec.kv_heads
        answers = []
        for head in range(self.spec.heads):
            scores = (keys[:, head // group] @ query[head]) * self.spec.head_width**-0.5
            exact = torch.promote_types(scores.dtype, torch.float32)
            weights = scores.softmax(dim=0, dtype=exact).to(values.dtype)
            answers.append(weights @ values[:, head // group])
        return torch.stack(answers)
