"""A slow executor that is right by inspection: the oracle of the tests.

One row at a time, no tensor of a batch, plain softmax, dictionaries for caches. It follows the definition: in layer l
the rows of R[l] are computed from their current input and their keys and values replace the cached ones; each of their
queries attends to the keys and values of all visible rows; any other row adds its cached outputs. So the first step has
to refresh everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from freshkv.core.network import Network
from freshkv.core.policy import Probes

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
        self.queries: dict[Place, Tensor] = {}
        self.inputs: dict[Place, Tensor] = {}

    @torch.no_grad()
    def step(
        self,
        tokens: Tensor,
        rows: Sequence[Tensor] | ChooseRows,
        *,
        visible: Tensor | None = None,
        probe: Sequence[Tensor] | None = None,
        probes: Probes = "values",
        probe_stores: bool = True,
    ) -> Tensor:
        """Final hidden states, [batch, seq, width], of all rows, carried.

        ``rows`` gives R[l], bool [batch, seq], for each layer, or chooses it from the movement of the probed rows,
        which ``probe`` gives for each layer; in the first step it is everything. ``visible`` is bool [batch, seq] or
        [batch, layers, seq].
        """
        batch, seq = tokens.shape
        hidden = {(b, i): self._embed(tokens[b, i]) for b in range(batch) for i in range(seq)}
        for layer in range(self.spec.layers):
            seen = self._seen(layer, visible)
            if probe is None:
                movement = torch.full(tokens.shape, float("nan"))
            elif probes == "hidden_states":
                movement = self._probe_inputs(layer, hidden, probe[layer])
            else:
                movement = self._probe_values(layer, hidden, probe[layer], stores=probe_stores)
            chosen = rows(layer, movement) if callable(rows) else rows[layer]
            refreshed = [place for place in hidden if chosen[place]]
            self.inputs |= {(layer, *place): hidden[place] for place in refreshed}
            # all keys and values first: a query of this layer sees the fresh ones of its neighbours
            queries = {place: self._project(layer, place, hidden[place]) for place in refreshed}
            for b, i in refreshed:
                attended = self._attend(layer, (b, i), queries[b, i], seen)
                self.attention[layer, b, i] = self.network.attention_output(layer, attended[None])[0]
            for (b, i), state in hidden.items():
                hidden[b, i] = state + self.attention[layer, b, i]
            for b, i in refreshed:
                self.feed_forward[layer, b, i] = self.network.feed_forward(layer, hidden[b, i][None])[0]
            for (b, i), state in hidden.items():
                hidden[b, i] = state + self.feed_forward[layer, b, i]
        return torch.stack([torch.stack([hidden[b, i] for i in range(seq)]) for b in range(batch)])

    def _seen(self, layer: int, visible: Tensor | None) -> Tensor:
        """bool [batch, seq]: keys that may be attended to."""
        if visible is None:
            return self.is_valid
        return self.is_valid & (visible if visible.ndim == 2 else visible[:, layer])

    def _seen_from(self, layer: int, place: tuple[int, int], seen: Tensor) -> list[int]:
        """The columns that the row at ``place`` attends to; all that are ``seen`` if the network lets it see none."""
        sequence, column = place
        places = [i for i in range(seen.shape[1]) if seen[sequence, i]]
        window = self.spec.windows[layer] if self.spec.windows else None
        block, own = self.spec.block_causal, self._position(sequence, column)
        allowed = places
        if block is not None:
            allowed = [i for i in allowed if self._position(sequence, i) // block <= own // block]
        if window is not None:
            allowed = [i for i in allowed if abs(self._position(sequence, i) - own) <= window]
        return allowed or places

    def _position(self, sequence: int, column: int) -> int:
        """Valid tokens before a column."""
        return max(int(self.is_valid[sequence, : column + 1].sum()) - 1, 0)

    def _embed(self, token: Tensor) -> Tensor:
        return self.network.embed_rows(token[None])[0]

    def _rotary(self, sequence: int, position: int) -> tuple[Tensor, Tensor]:
        before = int(self.is_valid[sequence, :position].sum())
        return self.network.rotary(torch.tensor([before], device=self.is_valid.device))

    def _project(self, layer: int, place: tuple[int, int], state: Tensor) -> Tensor:
        query, key, value = self.network.project(layer, state[None], self._rotary(*place))
        self.keys[(layer, *place)] = key[0]
        self.values[(layer, *place)] = value[0]
        self.queries[(layer, *place)] = query[0]
        return query[0]

    def _probe_values(
        self, layer: int, hidden: dict[tuple[int, int], Tensor], probe: Tensor, *, stores: bool
    ) -> Tensor:
        movement = torch.full(probe.shape, float("nan"))
        for place, state in hidden.items():
            if probe[place]:
                fresh = self.network.project_values(layer, state[None])[0]
                old, new = self.values[(layer, *place)].flatten().float(), fresh.flatten().float()
                movement[place] = 1 - (old @ new) / (old.norm() * new.norm())
                if stores:
                    self.values[(layer, *place)] = fresh
        return movement

    def _probe_inputs(self, layer: int, hidden: dict[tuple[int, int], Tensor], probe: Tensor) -> Tensor:
        """Mean absolute change of what enters the layer, over the root mean square of what entered it before."""
        movement = torch.full(probe.shape, float("nan"))
        for place, state in hidden.items():
            if probe[place]:
                old, new = self.inputs[(layer, *place)].float(), state.float()
                movement[place] = (new - old).abs().mean() / old.square().mean().sqrt()
        return movement

    def attention_row(self, layer: int, place: tuple[int, int], visible: Tensor | None) -> Tensor:
        """What the cached query of a row pays to each cached key, float32 [heads, seq]."""
        sequence = place[0]
        seen = self._seen(layer, visible)
        paid = torch.zeros(self.spec.heads, seen.shape[1])
        where = self._seen_from(layer, place, seen)
        for head in range(self.spec.heads):
            key_head = head // (self.spec.heads // self.spec.kv_heads)
            query = self.queries[(layer, *place)][head]
            scores = torch.stack([self.keys[layer, sequence, i][key_head] @ query for i in where])
            paid[head, where] = (scores.float() * self.spec.head_width**-0.5).softmax(dim=0)
        return paid

    def _attend(self, layer: int, place: tuple[int, int], query: Tensor, seen: Tensor) -> Tensor:
        """One query [heads, head_width] over all visible rows of its sequence: [heads, head_width]."""
        sequence = place[0]
        places = self._seen_from(layer, place, seen)
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
