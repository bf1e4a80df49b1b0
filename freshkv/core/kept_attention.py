"""Attention layer by layer, and what a pass keeps of it for the signals that policies ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.attention import attend, attend_openly, weighted_attention, weighted_scores
from freshkv.core.network import Network
from freshkv.core.rows import RowSet
from freshkv.core.store import RowStore
from freshkv.core.visible import VisibleKeys

#: rows of a sequence, and attention probabilities of a layer, up to which they are computed in the open
MOST_OPEN_ROWS, MOST_OPEN = 256, 1 << 22


class FewRowsAttention(Protocol):
    """Attention of a network's own, for few rows. It equals ``attention.attend_openly`` but for rounding."""

    def fits(self, queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None, *, paid: bool) -> bool:
        """Whether it can attend to these, and is the faster way to do so. Arguments as in ``attend``."""
        ...

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None, *, paid: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What ``rows`` gather, [rows, heads, head_width], and, if ``paid``, what they pay, float32 [rows, seq].

        Arguments as in ``attention.attend``.
        """
        ...

    def weigh(
        self, queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None
    ) -> Tensor | None:
        """What ``attention.weighted_attention`` gives, float32 [batch, kept], of any number of rows; None: not by this.

        Arguments as there.
        """
        ...


def own_attention(network: Network) -> FewRowsAttention | None:
    """The ``few_rows_attention`` of ``network``, if it has any."""
    own: FewRowsAttention | None = getattr(network, "few_rows_attention", None)
    return own


@frozen(eq=False)
class KeptAttention:
    """One layer's: what its rows paid, or the queries that it can be computed from once more."""

    rows: RowSet
    queries: Tensor | None  #: [rows, heads, head_width]
    paid: Tensor | None  #: float32 [rows, kept]; head-mean attention to each key that is attended to
    own: FewRowsAttention | None = None  #: of the network

    def received(self, weights: Tensor, keys: Tensor, visible: Tensor | None) -> Tensor:
        """Sum over rows of ``weights`` [rows] times their head-mean attention: float32 [batch, kept].

        ``keys`` and ``visible`` are those that were attended to, as in ``attend``.
        """
        if self.paid is None:
            given = (self._queries(), keys, weights, self.rows, visible)
            weighed = None if self.own is None else self.own.weigh(*given)
            return weighted_attention(*given) if weighed is None else weighed
        batch, seq = self.rows.mask.shape
        if batch == 1:
            return weights[None] @ self.paid
        # no product with zeros of other sequences: what is no number in one must stay there
        total = weights.new_zeros(batch, self.paid.shape[1])
        return total.index_add(0, self.rows.flat // seq, weights[:, None] * self.paid)

    def scores(self, weights: Tensor, keys: Tensor, visible: Tensor | None) -> Tensor:
        """The same of query-key products, scaled as for the softmax, which is not taken."""
        return weighted_scores(self._queries(), keys, weights, self.rows, visible)

    def _queries(self) -> Tensor:
        if self.queries is None:
            raise RuntimeError("This engine was not asked to keep queries.")
        return self.queries


class AttentionOfPass:
    """Attends, and keeps what signals need: ``queries`` for scores, ``paid`` for what keys receive.

    On a CPU what few rows pay falls off on the way. Elsewhere, and for many rows, a fused kernel is faster or needs
    less memory; queries are kept instead, and attention is computed again if it is asked for. So it is where passes
    are ``replayed``. ``own`` is that of the network, for few rows.
    """

    def __init__(
        self, own: FewRowsAttention | None = None, *, queries: bool, paid: bool, replayed: bool = False
    ) -> None:
        self._wants_queries, self._wants_paid, self._replayed = queries, paid, replayed
        self._own = own
        self.layers: list[KeptAttention] = []

    def keeps_queries(self, rows: RowSet, heads: int) -> bool:
        """Whether queries of ``rows``, of so many heads, are kept; those of what is replayed are among its outputs."""
        falls_off = _are_few(rows, heads, rows.mask.shape[1], rows.mask.device)
        return not self._replayed and (self._wants_queries or (self._wants_paid and not falls_off))

    def start(self) -> None:
        """A pass begins."""
        self.layers = []

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
        """What the rows of the next layer gather, [rows, heads, head_width]. Arguments as in ``attention.attend``."""
        few = _are_few(rows, queries.shape[1], keys.shape[2], queries.device)
        may_fall_off = self._wants_paid and not self._replayed and few
        attended, paid = None, None
        if self._own is not None and self._own.fits(queries, keys, rows, visible, paid=may_fall_off):
            attended, paid = self._own.attend(queries, keys, values, rows, visible, paid=may_fall_off)
        elif may_fall_off:
            attended, paid = attend_openly(queries, keys, values, rows, visible)
        if self._wants_queries or (self._wants_paid and paid is None):
            self.layers.append(KeptAttention(rows, queries, paid, self._own))
        elif self._wants_paid:
            self.layers.append(KeptAttention(rows, None, paid))
        return attend(queries, keys, values, rows, visible) if attended is None else attended

    def nothing(self, rows: RowSet) -> None:
        """The next layer has no ``rows``."""
        if self._wants_paid or self._wants_queries:
            self.layers.append(KeptAttention(rows, None, None))

    def restore(self, rows: RowSet, queries: Sequence[Tensor]) -> None:
        """Keep the ``queries`` of ``rows``, one tensor for each layer, of a pass that was replayed."""
        self.layers = [KeptAttention(rows, query, None, self._own) for query in queries]


def received_or_scored(
    store: RowStore,
    attention: Sequence[KeptAttention],
    seen: Sequence[VisibleKeys],
    queries_of: Tensor,
    combine: Callable[..., Tensor],
) -> Tensor:
    """Mean over the rows in ``queries_of``, bool [batch, seq], that were refreshed: float32 [batch, layers, seq].

    ``attention`` and ``seen`` are those of each layer; ``combine`` is a method of ``KeptAttention``. 0 where no row is.
    """
    parts = []
    for layer, kept in enumerate(attention):
        rows = kept.rows
        if rows.count == 0:
            parts.append(torch.zeros(queries_of.shape, device=queries_of.device))
            continue
        asking = (queries_of & rows.mask).float()
        share = asking / asking.sum(dim=1, keepdim=True).clamp(min=1)
        keys, _ = store.attended(layer, seen[layer])
        part = combine(kept, rows.take(share.flatten()), keys, seen[layer].mask)
        parts.append(seen[layer].spread(part, queries_of.shape[1]))
    return torch.stack(parts, dim=1)


def _are_few(rows: RowSet, heads: int, keys: int, device: torch.device) -> bool:
    """Whether what ``rows`` pay can fall off on the way."""
    probabilities = len(rows.counts) * rows.widest * heads * keys
    return rows.widest <= MOST_OPEN_ROWS and probabilities <= MOST_OPEN and device.type == "cpu"
