"""The cached state of a run: keys, values and, for the carried path, layer outputs. Allocated once."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.axes import BATCH, SEQ
from freshkv.core.gathered import GatheredRows
from freshkv.core.head_memory import HeadMemory
from freshkv.core.network import NetworkSpec
from freshkv.core.rows import RowSet
from freshkv.core.uploads import numbers
from freshkv.core.visible import VisibleKeys


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
        keep_hidden: bool = False,
        keep_inputs: bool = False,
        keep_queries: bool = False,
        poison: bool = False,
    ) -> None:
        def allocate(*shape: int) -> Tensor:
            memory = torch.empty(shape, device=device, dtype=dtype)
            return memory.fill_(float("nan")) if poison else memory

        self._batch, self._poison = batch, poison

        def allocate_heads() -> HeadMemory:
            size = (spec.layers, spec.kv_heads, batch, seq, spec.head_width)
            memory = HeadMemory(*size, device=device, dtype=dtype)
            if poison:
                memory.fill(float("nan"))
            return memory

        outputs = (spec.layers, batch, seq, spec.width)
        self._keys, self._values = allocate_heads(), allocate_heads()
        self._outputs = allocate(*outputs) if carried else None
        self._hidden = allocate(*outputs) if keep_hidden else None
        self._inputs = allocate(*outputs) if keep_inputs else None
        queries = (spec.layers, batch, seq, spec.heads, spec.head_width)
        self._queries = allocate(*queries) if keep_queries else None
        self._gathered: dict[int, GatheredRows] = {}
        self._gathered_bytes = 0
        #: bool [batch, seq]; rows that have been computed at least once
        self.written = torch.zeros(batch, seq, dtype=torch.bool, device=device)
        self.complete = False  #: whether all have

    @property
    def batch(self) -> int:
        """Sequences that are still held."""
        return self._batch

    @property
    def bytes(self) -> int:
        """Size of the allocation, gathered copies at their most. Hidden states do not count: they are for onlookers."""
        held = (self._keys, self._values, self._outputs, self._inputs, self._queries)
        return sum(memory.nbytes for memory in held if memory is not None) + self._gathered_bytes

    def keys(self, layer: int) -> Tensor:
        """[batch, seq, kv_heads, head_width], a view."""
        return self._keys.by_row(layer)

    def keys_by_head(self, layer: int) -> Tensor:
        """[kv_heads, batch, seq, head_width], a view; the same as attention reads them."""
        return self._keys.by_head(layer)

    def values(self, layer: int) -> Tensor:
        """[batch, seq, kv_heads, head_width], a view."""
        return self._values.by_row(layer)

    def values_of(self, layer: int, rows: RowSet) -> Tensor:
        """[rows, kv_heads, head_width]; cached values of ``rows``."""
        return self._values.take(layer, rows)

    def layer_outputs(self, layer: int) -> Tensor:
        """[batch * seq, width], a view; what a layer added to each row, attention and feed-forward network together.

        Carried path only.
        """
        return self._of_layer(self._outputs, layer)

    def hidden(self, layer: int) -> Tensor:
        """[batch * seq, width], a view; what each row left the layer with when it last went through it."""
        return self._of_layer(self._hidden, layer)

    def inputs(self, layer: int) -> Tensor:
        """[batch * seq, width], a view; what entered the layer when the row was last refreshed in it."""
        return self._of_layer(self._inputs, layer)

    def queries(self, layer: int) -> Tensor:
        """[batch * seq, heads, head_width], a view; of each row when it was last refreshed."""
        return self._of_layer(self._queries, layer)

    def attended(self, layer: int, seen: VisibleKeys) -> tuple[Tensor, Tensor]:
        """Keys and values of what is visible, [kv_heads, batch, kept, head_width] each, kept = seq where in place."""
        keys, values = self._keys.by_head(layer), self._values.by_head(layer)
        if seen.columns is None:
            self._gathered.pop(layer, None)
            if self.complete:
                return keys, values
            # what was never computed may be no number, and no number times a weight of 0 is none either
            never = ~self.written[:, :, None]
            return keys.masked_fill(never, 0), values.masked_fill(never, 0)
        held = self._gathered.get(layer)
        if held is None or held.columns is not seen.columns:
            self._gathered[layer] = held = GatheredRows(seen, keys, values)
            self._gathered_bytes = max(self._gathered_bytes, sum(part.bytes for part in self._gathered.values()))
        return held.keys, held.values

    def mark_written(self, rows: RowSet) -> None:
        """Note that ``rows`` have been computed in every layer."""
        if not self.complete:
            self.written = self.written | rows.mask
            self.complete = rows.full or bool(self.written.all())

    def write_inputs(self, layer: int, rows: RowSet, hidden: Tensor) -> None:
        """Replace what entered the layer, of ``rows``, by ``hidden`` [rows, width]."""
        rows.put(self.inputs(layer), hidden)

    def write_queries(self, layer: int, rows: RowSet, queries: Tensor) -> None:
        """Replace the queries of ``rows`` by ``queries`` [rows, heads, head_width]."""
        rows.put(self.queries(layer), queries)

    def write_hidden(self, layer: int, rows: RowSet, hidden: Tensor) -> None:
        """Replace the hidden states of ``rows`` by ``hidden`` [rows, width]."""
        rows.put(self.hidden(layer), hidden)

    def _of_layer(self, memory: Tensor | None, layer: int) -> Tensor:
        if memory is None:
            raise RuntimeError(
                "This store was not asked to hold that: layer outputs, hidden states, inputs or queries."
            )
        return memory[layer, : self._batch].flatten(0, 1)

    def write_keys(self, layer: int, rows: RowSet, keys: Tensor) -> None:
        """Replace the keys of ``rows`` by ``keys`` [rows, kv_heads, head_width]."""
        self._keys.write(layer, rows, keys)
        if layer in self._gathered:
            self._gathered[layer].write_keys(rows, keys)

    def write_values(self, layer: int, rows: RowSet, values: Tensor) -> None:
        """Replace the values of ``rows`` by ``values`` [rows, kv_heads, head_width]."""
        self._values.write(layer, rows, values)
        if layer in self._gathered:
            self._gathered[layer].write_values(rows, values)

    def blank(self, columns: Tensor) -> None:
        """Fill ``columns``, bool [batch, seq], left padding, with zeros in every layer; they count as written."""
        self._fill(0, columns, 0.0)
        self.written = self.written | columns
        self.complete = bool(self.written.all())

    def admit(self, padding: Tensor) -> None:
        """Hold more sequences, bool [new, seq], in memory that ``keep`` has just freed. They are blank where True."""
        first, self._batch = self._batch, self._batch + padding.shape[0]
        self._keys.admit(padding.shape[0])
        self._values.admit(padding.shape[0])
        if self._poison:
            self._fill(first, torch.ones_like(padding), float("nan"))
        self._fill(first, padding, 0.0)
        self.written = torch.cat((self.written, padding))
        self.complete = bool(self.written.all())

    def _fill(self, first: int, columns: Tensor, value: float) -> None:
        """Write ``value`` to the leftmost columns, bool [some, seq], of sequences from ``first`` on."""
        for heads in (self._keys, self._values):
            heads.fill_columns(first, columns, value)
        for place, width in enumerate(columns.sum(dim=SEQ).tolist(), start=first):
            for memory in self._by_row():
                memory[:, place, :width] = value

    def _by_row(self) -> list[Tensor]:
        memories = (self._queries, self._outputs, self._hidden, self._inputs)
        return [memory for memory in memories if memory is not None]

    def keep(self, sequences: list[int]) -> None:
        """Keep these sequences, given in ascending order, and forget the others. Moves memory, allocates none."""
        self._keys.keep(sequences)
        self._values.keep(sequences)
        for memory in self._by_row():
            for place, sequence in enumerate(sequences):
                if place != sequence:
                    memory[:, place] = memory[:, sequence]
        self._batch = len(sequences)
        self._gathered.clear()
        self.written = self.written.index_select(BATCH, numbers(sequences, self.written.device))
        self.complete = self.complete or bool(self.written.all())
