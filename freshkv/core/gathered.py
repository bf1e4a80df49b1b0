"""Copies of the visible keys and values of a layer, side by side, kept up to date while rows are written."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.rows import RowSet
from freshkv.core.visible import VisibleKeys


class GatheredRows:
    """What attention reads in place of a whole layer where only some of its keys are visible.

    Made once for a choice of visible keys; afterwards only the rows that are refreshed are copied again.
    """

    def __init__(self, seen: VisibleKeys, keys: Tensor, values: Tensor) -> None:
        if seen.columns is None or seen.slots is None:
            raise ValueError("These keys are attended to in place: there is nothing to gather.")
        self.columns, self._slots = seen.columns, seen.slots
        batch, seq = keys.shape[:2]
        flat = (seen.columns + torch.arange(batch, device=keys.device)[:, None] * seq).flatten()
        self._keys = _copy(keys, flat)
        self._values = _copy(values, flat)

    @property
    def bytes(self) -> int:
        """Size of the copies."""
        return self._keys.nbytes + self._values.nbytes

    @property
    def keys(self) -> Tensor:
        """[batch, kept, kv_heads, head_width], a view."""
        return self._keys[:-1].view(*self.columns.shape, *self._keys.shape[1:])

    @property
    def values(self) -> Tensor:
        """[batch, kept, kv_heads, head_width], a view."""
        return self._values[:-1].view(*self.columns.shape, *self._values.shape[1:])

    def write_keys(self, rows: RowSet, keys: Tensor) -> None:
        """Replace the keys of ``rows`` [rows, kv_heads, head_width], as far as they are held."""
        self._keys.index_copy_(0, rows.take(self._slots), keys)

    def write_values(self, rows: RowSet, values: Tensor) -> None:
        """Replace the values of ``rows`` [rows, kv_heads, head_width], as far as they are held."""
        self._values.index_copy_(0, rows.take(self._slots), values)


def _copy(cached: Tensor, flat: Tensor) -> Tensor:
    """Rows ``flat``, long [n], of ``cached`` [batch, seq, ...]: [n + 1, ...]; the last takes what is not held."""
    copied = cached.new_empty(flat.numel() + 1, *cached.shape[2:])
    torch.index_select(cached.flatten(0, 1), 0, flat, out=copied[:-1])
    return copied
