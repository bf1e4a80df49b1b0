"""Memory for keys or values, head by head, so that attention reads the rows of a head one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.rows import RowSet


class HeadMemory:
    """Vectors [head_width] of every row, key head and layer, allocated once.

    A sequence's rows of one head are a slab. The slabs of the sequences that are held follow each other without gaps,
    also after some have left, so that a layer is always one piece of memory: libraries would copy it otherwise.
    """

    def __init__(
        self, layers: int, kv_heads: int, batch: int, seq: int, width: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._memory = torch.empty(layers, kv_heads * batch, seq, width, device=device, dtype=dtype)
        self._kv_heads = kv_heads
        self._hold(batch)

    def _hold(self, batch: int) -> None:
        """From now on so many sequences."""
        self._batch = batch
        # made once, since every layer of every step reads them; by place: [kv_heads, batch * seq, head_width]
        held = [layer[: self._kv_heads * batch] for layer in self._memory]
        self._by_head: list[Tensor] = [slabs.view(self._kv_heads, batch, *slabs.shape[1:]) for slabs in held]
        self._by_place: list[Tensor] = [heads.flatten(1, 2) for heads in self._by_head]

    @property
    def nbytes(self) -> int:
        """Size of the allocation."""
        return self._memory.nbytes

    def by_head(self, layer: int) -> Tensor:
        """[kv_heads, batch, seq, head_width], a view, contiguous."""
        return self._by_head[layer]

    def by_row(self, layer: int) -> Tensor:
        """[batch, seq, kv_heads, head_width], a view."""
        return self.by_head(layer).permute(1, 2, 0, 3)

    def write(self, layer: int, rows: RowSet, fresh: Tensor) -> None:
        """Replace ``rows`` by ``fresh`` [rows, kv_heads, head_width]."""
        rows.put_by_head(self._by_place[layer], fresh)

    def take(self, layer: int, rows: RowSet) -> Tensor:
        """``rows`` as [rows, kv_heads, head_width]."""
        return rows.take_by_head(self._by_place[layer])

    def fill(self, value: float) -> None:
        """``value`` everywhere."""
        self._memory.fill_(value)

    def fill_columns(self, first: int, columns: Tensor, value: float) -> None:
        """``value`` in the leftmost columns, bool [some, seq], of sequences from ``first`` on."""
        for place, width in enumerate(columns.sum(dim=SEQ).tolist(), start=first):
            self._memory[:, place : self._kv_heads * self._batch : self._batch, :width] = value

    def keep(self, sequences: list[int]) -> None:
        """Keep these sequences, in ascending order, and forget the others. Moves slabs, allocates nothing."""
        left = len(sequences)
        for head in range(self._kv_heads):
            for place, sequence in enumerate(sequences):
                # a slab never moves behind where it was: what is still to be read is not written over
                self._move(head * self._batch + sequence, head * left + place)
        self._hold(left)

    def admit(self, newcomers: int) -> None:
        """Make place for more sequences behind those that are held; what it holds then means nothing."""
        held, batch = self._batch, self._batch + newcomers
        for head in reversed(range(self._kv_heads)):
            for place in reversed(range(held)):
                self._move(head * held + place, head * batch + place)
        self._hold(batch)

    def _move(self, source: int, target: int) -> None:
        if source != target:
            self._memory[:, target] = self._memory[:, source]
