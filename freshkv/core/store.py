"""The cached state of a run: keys, values and, for the carried path, layer outputs. Allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.network import NetworkSpec
from freshkv.core.rows import RowSet


class RowStore:
    """Keys (after rotary embedding) and values of every row in every layer.

    The only code that writes cached tensors. Row i of layer l changes only when a RowSet that holds it is written.
    ``poison`` fills the fresh memory with NaN, so that reading what was never written shows.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        batch: int,
        seq: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        carried: bool = False,
        poison: bool = False,
    ) -> None:
        def allocate(*shape: int) -> Tensor:
            memory = torch.empty(shape, device=device, dtype=dtype)
            return memory.fill_(float("nan")) if poison else memory

        self._batch, self._seq = batch, seq
        heads = (spec.layers, batch, seq, spec.kv_heads, spec.head_width)
        outputs = (spec.layers, batch, seq, spec.width)
        self._keys = allocate(*heads)
        self._values = allocate(*heads)
        self._attention = allocate(*outputs) if carried else None
        self._feed_forward = allocate(*outputs) if carried else None

    @property
    def batch(self) -> int:
        """Sequences that are still held."""
        return self._batch

    @property
    def bytes(self) -> int:
        """Size of the allocation."""
        held = (self._keys, self._values, self._attention, self._feed_forward)
        return sum(memory.nbytes for memory in held if memory is not None)

    def keys(self, layer: int) -> Tensor:
        """[batch, seq, kv_heads, head_width], a view."""
        return self._keys[layer, : self._batch]

    def values(self, layer: int) -> Tensor:
        """[batch, seq, kv_heads, head_width], a view."""
        return self._values[layer, : self._batch]

    def attention_outputs(self, layer: int) -> Tensor:
        """[batch * seq, width], a view; carried path only."""
        return self._outputs(self._attention, layer)

    def feed_forward_outputs(self, layer: int) -> Tensor:
        """[batch * seq, width], a view; carried path only."""
        return self._outputs(self._feed_forward, layer)

    def _outputs(self, memory: Tensor | None, layer: int) -> Tensor:
        if memory is None:
            raise RuntimeError("This store holds no layer outputs: it was allocated for the narrow path.")
        return memory[layer, : self._batch].flatten(0, 1)

    def write_keys(self, layer: int, rows: RowSet, keys: Tensor) -> None:
        """Replace the keys of ``rows`` by ``keys`` [rows, kv_heads, head_width]."""
        rows.put(self.keys(layer).flatten(0, 1), keys)

    def write_values(self, layer: int, rows: RowSet, values: Tensor) -> None:
        """Replace the values of ``rows`` by ``values`` [rows, kv_heads, head_width]."""
        rows.put(self.values(layer).flatten(0, 1), values)

    def keep(self, sequences: list[int]) -> None:
        """Keep these sequences, given in ascending order, and forget the others. Moves memory, allocates none."""
        for memory in (self._keys, self._values, self._attention, self._feed_forward):
            if memory is None:
                continue
            for place, sequence in enumerate(sequences):
                if place != sequence:
                    memory[:, place] = memory[:, sequence]
        self._batch = len(sequences)
