"""Whether the attention that some rows pay has changed since the pass before, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.attention import attention_of
from freshkv.core.division import UNDIVIDED, Division
from freshkv.core.pattern import PatternSight
from freshkv.core.rows import RowSet
from freshkv.core.store import RowStore
from freshkv.core.visible import VisibleKeys


class AttentionDrift:
    """Compares what watched rows pay in a layer, before and after the layer's rows are written to ``store``.

    Elastic-Cache (arXiv:2510.14973, section 3) watches the rows of the most-attended tokens. What a row paid in the
    pass before is found from its cached query and the keys as that pass left them.
    """

    def __init__(self, store: RowStore, sight: PatternSight | None = None, division: Division = UNDIVIDED) -> None:
        self._store = store
        self._sight, self._division = sight, division
        self._watch: Tensor | None = None
        self._among: RowSet | None = None  # the layer's rows that _watched is of
        self._watched: RowSet | None = None
        self._paid: Tensor | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Rows of each sequence that are compared in the layer at hand; empty: none."""
        return () if self._watched is None else self._watched.counts

    def start(self, watch: Tensor | None) -> None:
        """Begin a pass. ``watch`` is bool [batch, seq], padding left out; None: nothing is watched."""
        self._watch, self._among, self._watched = watch, None, None

    def before(self, layer: int, rows: RowSet, visible: Tensor | None) -> None:
        """Look at the layer before ``rows`` are written. ``visible`` is bool [batch, seq], or None: all keys."""
        if self._among is not rows:
            watched = None if self._watch is None else RowSet.of(self._watch & rows.mask)
            self._among, self._watched = rows, None if watched is None or watched.count == 0 else watched
        if self._watched is not None:
            queries = self._watched.take(self._store.queries(layer))
            self._paid = attention_of(
                queries, self._store.keys_by_head(layer), self._watched, self._seen(layer, visible)
            )

    def after(self, layer: int, rows: RowSet, queries: Tensor, visible: Tensor | None) -> Tensor:
        """Look again when ``rows`` and their ``queries`` are written: float32 [batch], NaN where nothing is watched.

        1 - cosine of what a sequence's watched rows pay, all rows and heads together, now and in the pass before.
        """
        store, (batch, seq) = self._store, rows.mask.shape
        store.write_queries(layer, rows, queries)
        if self._watched is None or self._paid is None:
            return torch.full((batch,), torch.nan, device=rows.mask.device)
        watched = self._watched
        paid = attention_of(
            watched.take(store.queries(layer)), store.keys_by_head(layer), watched, self._seen(layer, visible)
        )
        sequence = watched.flat // seq
        products = [
            (one * other).sum(dim=(1, 2)) for one, other in ((paid, self._paid), (paid, paid), (self._paid,) * 2)
        ]
        sums = [paid.new_zeros(batch).index_add(0, sequence, product) for product in products]
        together, now, then = self._division.total(torch.stack(sums))  # all heads
        drift: Tensor = 1 - together / (now * then).sqrt()  # 0 / 0 is NaN
        return drift

    def _seen(self, layer: int, visible: Tensor | None) -> Tensor | None:
        """``visible`` as the watched rows see it."""
        if self._sight is None or self._watched is None:
            return visible
        return self._sight.by(layer, self._watched, VisibleKeys(visible)).mask
