"""The forward pass over some rows, against cached keys and values of the others. Both paths, one semantics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.attention import attend
from freshkv.core.network import Network
from freshkv.core.rollout import attention_rollout
from freshkv.core.rows import RowSet
from freshkv.core.shadow import ShadowRows
from freshkv.core.store import RowStore

#: (layer, movement [batch, seq]) to the rows, bool [batch, seq], that are refreshed in that layer
ChooseRows = Callable[[int, Tensor], Tensor]


@frozen(eq=False)
class ForwardResult:
    """Final hidden states of the rows that came through, and which rows were refreshed where."""

    hidden: Tensor  #: [rows.count, width], before the final norm
    rows: RowSet  #: the rows of ``hidden``
    refreshed: tuple[RowSet, ...]  #: for each layer
    shadow: ShadowRows | None = None  #: where a decoder asked for it


def rotary_positions(is_valid: Tensor) -> Tensor:
    """Positions for rotary embedding, long [batch, seq]: the first valid token is 0, padding too."""
    return (is_valid.long().cumsum(dim=1) - 1).clamp(min=0)


class Engine:
    """Runs a network over chosen rows and keeps what they leave behind.

    ``is_valid`` is bool [batch, seq], False at left padding. ``carried`` allocates the outputs that the carried path
    adds; ``keep_queries`` keeps each layer's queries of the last pass, which the rollout signal reads.
    """

    def __init__(
        self,
        network: Network,
        is_valid: Tensor,
        *,
        carried: bool = False,
        keep_queries: bool = False,
        poison: bool = False,
    ) -> None:
        batch, seq = is_valid.shape
        self.network = network
        self.spec = network.network_spec
        self.store = RowStore(
            self.spec, batch, seq, device=network.device, dtype=network.dtype, carried=carried, poison=poison
        )
        self._is_valid = is_valid
        self._padded = not bool(is_valid.all())
        cosine, sine = network.rotary(rotary_positions(is_valid).flatten())
        self._cosine, self._sine = cosine, sine  # [batch * seq, head_width]
        self._keep_queries = keep_queries
        self._queries: list[tuple[RowSet, Tensor]] = []
        self._visible: Tensor | None = None

    @torch.no_grad()
    def narrow(
        self, tokens: Tensor, rows: RowSet, visible: Tensor | None = None, verify: Tensor | None = None
    ) -> ForwardResult:
        """Only ``rows`` flow, the same in all layers. ``tokens`` is long [batch, seq].

        ``visible``, bool [batch, seq], says which keys may be attended; ``verify``, likewise, which positions are given
        a shadow row.
        """
        network = self.network
        visible = self._start(visible)
        shadow = self._shadow(verify)
        hidden = network.embed_rows(rows.take(tokens.flatten()))
        rotary = self._rotary(rows)
        for layer in range(self.spec.layers):
            hidden = hidden + self._attention(layer, hidden, rotary, rows, visible)
            hidden = hidden + network.feed_forward(layer, hidden)
            if shadow is not None:
                shadow.advance(layer, self.store)
        return ForwardResult(hidden, rows, (rows,) * self.spec.layers, shadow)

    @torch.no_grad()
    def carried(
        self,
        tokens: Tensor,
        choose: ChooseRows,
        probe: RowSet | None = None,
        visible: Tensor | None = None,
        verify: Tensor | None = None,
    ) -> ForwardResult:
        """All rows flow; ``choose`` picks those refreshed in a layer, the others add their cached outputs.

        The values of ``probe`` are recomputed and stored first in every layer, and ``choose`` learns how far they
        moved.
        """
        network, store = self.network, self.store
        visible = self._start(visible)
        shadow = self._shadow(verify)
        everything = RowSet.of(torch.ones_like(tokens, dtype=torch.bool))
        hidden = network.embed_rows(tokens.flatten())
        refreshed: list[RowSet] = []
        for layer in range(self.spec.layers):
            movement = self._movement(layer, hidden, probe, tokens.shape)
            rows = self._rows_of(choose(layer, movement), refreshed)
            if rows.count > 0:
                output = self._attention(layer, rows.take(hidden), self._rotary(rows), rows, visible)
                rows.put(store.attention_outputs(layer), output)
            hidden = hidden + store.attention_outputs(layer)
            if rows.count > 0:
                rows.put(store.feed_forward_outputs(layer), network.feed_forward(layer, rows.take(hidden)))
            hidden = hidden + store.feed_forward_outputs(layer)
            refreshed.append(rows)
            if shadow is not None:
                shadow.advance(layer, store)
        return ForwardResult(hidden, everything, tuple(refreshed), shadow)

    def rollout(self) -> Tensor:
        """Attention rollout of the last pass, float32 [batch, seq]; needs ``keep_queries``."""
        return attention_rollout(self.store, self._queries, self._is_valid, self._visible)

    def keep(self, sequences: list[int]) -> None:
        """Forget all sequences but these (ascending), in every tensor that is held."""
        batch, seq = self._is_valid.shape
        self.store.keep(sequences)
        index = torch.tensor(sequences, device=self._is_valid.device)
        self._is_valid = self._is_valid.index_select(0, index)
        self._padded = not bool(self._is_valid.all())
        self._cosine = self._cosine.view(batch, seq, -1).index_select(0, index).flatten(0, 1)
        self._sine = self._sine.view(batch, seq, -1).index_select(0, index).flatten(0, 1)
        self._queries = []

    def _start(self, visible: Tensor | None) -> Tensor | None:
        self._queries = []
        if visible is not None:
            self._visible = visible & self._is_valid
        else:
            # no mask at all is the fastest mask
            self._visible = self._is_valid if self._padded else None
        return self._visible

    def _shadow(self, verify: Tensor | None) -> ShadowRows | None:
        if verify is None or not bool(verify.any()):
            return None
        seen = self._is_valid if self._visible is None else self._visible
        return ShadowRows(self.network, verify, (self._cosine, self._sine), seen)

    def _rotary(self, rows: RowSet) -> tuple[Tensor, Tensor]:
        return rows.take(self._cosine), rows.take(self._sine)

    def _attention(
        self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet, visible: Tensor | None
    ) -> Tensor:
        queries, keys, values = self.network.project(layer, hidden, rotary)
        self.store.write_keys(layer, rows, keys)
        self.store.write_values(layer, rows, values)
        if self._keep_queries:
            self._queries.append((rows, queries))
        attended = attend(queries, self.store.keys(layer), self.store.values(layer), rows, visible)
        return self.network.attention_output(layer, attended)

    def _movement(self, layer: int, hidden: Tensor, probe: RowSet | None, shape: torch.Size) -> Tensor:
        movement = torch.full((shape[0] * shape[1],), float("nan"), device=hidden.device)
        if probe is not None and probe.count > 0:
            fresh = self.network.project_values(layer, probe.take(hidden))
            cached = probe.take(self.store.values(layer).flatten(0, 1))
            cosine = torch.cosine_similarity(fresh.flatten(1).float(), cached.flatten(1).float(), dim=1)
            probe.put(movement, 1 - cosine)
            self.store.write_values(layer, probe, fresh)
        return movement.view(shape)

    @staticmethod
    def _rows_of(mask: Tensor, earlier: list[RowSet]) -> RowSet:
        # policies often name the same tensor in every layer: its indices are built once
        if earlier and earlier[-1].mask is mask:
            return earlier[-1]
        return RowSet.of(mask)
