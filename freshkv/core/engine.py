"""The forward pass over some rows, against cached keys and values of the others. Both paths, one semantics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.attention import attend, weighted_attention
from freshkv.core.attention_drift import AttentionDrift
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
    adds; ``keep_queries`` keeps each layer's queries of the last pass, which attention signals read;
    ``watch_attention`` fills ``attention_drift`` layer by layer.
    """

    def __init__(
        self,
        network: Network,
        is_valid: Tensor,
        *,
        carried: bool = False,
        keep_queries: bool = False,
        watch_attention: bool = False,
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
        self._drift = AttentionDrift(self.spec.layers) if watch_attention else None
        #: float32 [batch]; drift of the attention in the layer that was computed last, NaN where unknown
        self.attention_drift = torch.full((batch,), torch.nan, device=network.device)

    @torch.no_grad()
    def narrow(
        self, tokens: Tensor, rows: RowSet, visible: Tensor | None = None, verify: Tensor | None = None
    ) -> ForwardResult:
        """Only ``rows`` flow, the same in all layers. ``tokens`` is long [batch, seq].

        ``visible``, bool [batch, seq] or [batch, layers, seq], says which keys may be attended; ``verify``, bool
        [batch, seq], which positions are given a shadow row.
        """
        network = self.network
        self._start(visible)
        shadow = self._shadow(verify)
        hidden = network.embed_rows(rows.take(tokens.flatten()))
        rotary = self._rotary(rows)
        for layer in range(self.spec.layers):
            hidden = hidden + self._attention(layer, hidden, rotary, rows)
            hidden = hidden + network.feed_forward(layer, hidden)
            if shadow is not None:
                self._advance(shadow, layer)
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
        self._start(visible)
        shadow = self._shadow(verify)
        everything = RowSet.of(torch.ones_like(tokens, dtype=torch.bool))
        hidden = network.embed_rows(tokens.flatten())
        refreshed: list[RowSet] = []
        for layer in range(self.spec.layers):
            movement = self._movement(layer, hidden, probe, tokens.shape)
            rows = self._rows_of(choose(layer, movement), refreshed)
            if rows.count == 0:
                self._nothing_refreshed(rows)
            else:
                output = self._attention(layer, rows.take(hidden), self._rotary(rows), rows)
                rows.put(store.attention_outputs(layer), output)
            hidden = hidden + store.attention_outputs(layer)
            if rows.count > 0:
                rows.put(store.feed_forward_outputs(layer), network.feed_forward(layer, rows.take(hidden)))
            hidden = hidden + store.feed_forward_outputs(layer)
            refreshed.append(rows)
            if shadow is not None:
                self._advance(shadow, layer)
        return ForwardResult(hidden, everything, tuple(refreshed), shadow)

    def rollout(self) -> Tensor:
        """Attention rollout of the last pass, float32 [batch, seq]; needs ``keep_queries``."""
        seen = [self._seen(layer) for layer in range(self.spec.layers)]
        return attention_rollout(self.store, self._queries, self._is_valid, seen)

    def attention_received(self, queries_of: Tensor) -> Tensor:
        """What each key received in the last pass, float32 [batch, layers, seq]; needs ``keep_queries``.

        Head-mean attention, averaged over the refreshed rows in ``queries_of``, bool [batch, seq]; 0 where none is.
        """
        received = []
        for layer, (rows, queries) in enumerate(self._queries):
            if rows.count == 0:
                received.append(torch.zeros(queries_of.shape, device=queries_of.device))
                continue
            asking = (queries_of & rows.mask).float()
            share = asking / asking.sum(dim=1, keepdim=True).clamp(min=1)
            weights = rows.take(share.flatten())
            received.append(weighted_attention(queries, self.store.keys(layer), weights, rows, self._seen(layer)))
        return torch.stack(received, dim=1)

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
        if self._drift is not None:
            self._drift.keep(index)
            self.attention_drift = self.attention_drift[index]

    def _start(self, visible: Tensor | None) -> None:
        self._queries = []
        self.attention_drift = torch.full_like(self.attention_drift, torch.nan)
        if visible is not None:
            self._visible = visible & (self._is_valid if visible.ndim == 2 else self._is_valid[:, None])
        else:
            # no mask at all is the fastest mask
            self._visible = self._is_valid if self._padded else None

    def _seen(self, layer: int) -> Tensor | None:
        """Keys that may be attended in a layer, bool [batch, seq]; None: all."""
        return self._visible if self._visible is None or self._visible.ndim == 2 else self._visible[:, layer]

    def _shadow(self, verify: Tensor | None) -> ShadowRows | None:
        if verify is None or not bool(verify.any()):
            return None
        return ShadowRows(self.network, verify, (self._cosine, self._sine))

    def _advance(self, shadow: ShadowRows, layer: int) -> None:
        seen = self._seen(layer)
        shadow.advance(layer, self.store, self._is_valid if seen is None else seen)

    def _rotary(self, rows: RowSet) -> tuple[Tensor, Tensor]:
        return rows.take(self._cosine), rows.take(self._sine)

    def _attention(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet) -> Tensor:
        queries, fresh_keys, fresh_values = self.network.project(layer, hidden, rotary)
        self.store.write_keys(layer, rows, fresh_keys)
        self.store.write_values(layer, rows, fresh_values)
        keys, values, seen = self.store.keys(layer), self.store.values(layer), self._seen(layer)
        if self._keep_queries:
            self._queries.append((rows, queries))
        if self._drift is not None:
            self.attention_drift = self._drift.update(layer, queries, keys, rows, seen, self._is_valid)
        return self.network.attention_output(layer, attend(queries, keys, values, rows, seen))

    def _nothing_refreshed(self, rows: RowSet) -> None:
        self.attention_drift = torch.full_like(self.attention_drift, torch.nan)
        if self._keep_queries:
            shape = (0, self.spec.heads, self.spec.head_width)
            self._queries.append((rows, torch.empty(shape, device=self.network.device, dtype=self.network.dtype)))

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
