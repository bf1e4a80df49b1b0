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
        batch, seq = keys.shape[1:3]
        flat = (seen.columns + torch.arange(batch, device=keys.device)[:, None] * seq).flatten()
        with torch.inference_mode(mode=False):  # they are written to elsewhere, too
            self._keys, self._values = _copy(keys, flat), _copy(values, flat)

    @property
    def bytes(self) -> int:
        """Size of the copies."""
        return self._keys.nbytes + self._values.nbytes

    @property
    def keys(self) -> Tensor:
        """[kv_heads, batch, kept, head_width], a view."""
        return self._held(self._keys)

    @property
    def values(self) -> Tensor:
        """[kv_heads, batch, kept, head_width], a view."""
        return self._held(self._values)

    def write_keys(self, rows: RowSet, keys: Tensor) -> None:
        """Replace the keys of ``rows`` [rows, kv_heads, head_width], as far as they are held."""
        self._keys[:, rows.take(self._slots)] = keys.transpose(0, 1)

    def write_values(self, rows: RowSet, values: Tensor) -> None:
        """Replace the values of ``rows`` [rows, kv_heads, head_width], as far as they are held."""
        self._values[:, rows.take(self._slots)] = values.transpose(0, 1)

    def _held(self, copied: Tensor) -> Tensor:
        return torch.unflatten(copied[:, :-1], 1, self.columns.shape)


def _copy(cached: Tensor, flat: Tensor) -> Tensor:
    """Rows ``flat``, long [n], of ``cached`` [kv_heads, batch, seq, width]: [kv_heads, n + 1, width].

    The last one takes what is not held.
    """
    copied = cached.new_empty(cached.shape[0], flat.numel() + 1, cached.shape[-1])
    copied[:, :-1] = cached.flatten(1, 2).index_select(1, flat)
    return copied
