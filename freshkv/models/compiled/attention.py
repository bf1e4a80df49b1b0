"""Attention of few rows, in one pass over the keys, with what each row pays falling off."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor

from freshkv.core.rows import RowSet
from freshkv.models.compiled.compiler import ADDRESS, INTEGER, compiled
from freshkv.models.compiled.rowwise import NAMES

#: rows of a sequence for which it is faster than torch's own, where nobody asks what they pay, and where somebody does
WORTH_IT = {torch.float32: range(12, 1025), torch.bfloat16: range(1, 161)}
WORTH_IT_PAID = {torch.float32: range(1, 1025), torch.bfloat16: range(1, 1025)}

#: bfloat16 heads of whole tiles are multiplied by the processor's unit for them
TILE_WIDTH = 32


class CompiledAttention:
    """A ``FewRowsAttention`` of freshkv's own, for float32 and bfloat16. Sums, softmax and what rows pay are float32.

    It is as exact as a fused kernel: probabilities of bfloat16 are rounded to meet the values.
    """

    def fits(self, queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None, *, paid: bool) -> bool:
        """See ``FewRowsAttention``."""
        plain = keys.shape[2] > 0 and (visible is None or visible.ndim == 2)
        side_by_side = queries.stride(-1) == 1 and keys.stride(-1) == 1
        slow = queries.dtype == torch.bfloat16 and queries.shape[-1] % TILE_WIDTH > 0
        worth_it = (WORTH_IT_PAID if paid else WORTH_IT)[queries.dtype]
        return plain and side_by_side and not slow and rows.widest in worth_it

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None, *, paid: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See ``FewRowsAttention``. Raises MemoryError where there is none for the scores of a panel."""
        kv_heads, batch, seq, width = keys.shape
        attended = torch.empty_like(queries, memory_format=torch.contiguous_format)
        shares = queries.new_empty(seq, rows.count, dtype=torch.float32) if paid else None
        seen = None if visible is None else visible.expand(batch, seq).contiguous()
        values = values if values.stride(-1) == 1 else values.contiguous()
        strides = (queries.stride(1), queries.stride(0), *keys.stride()[:3], *values.stride()[:3])
        failed = _function(queries.dtype)(
            queries.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            (INTEGER * 8)(*strides),
            None if seen is None else seen.data_ptr(),
            (INTEGER * batch)(*rows.counts),
            batch,
            queries.shape[1],
            kv_heads,
            seq,
            width,
            attended.data_ptr(),
            None if shares is None else shares.data_ptr(),
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError(f"No memory for the attention of {rows.count} rows to {seq} keys.")
        return attended, None if shares is None else shares.t()


@cache
def _function(dtype: torch.dtype) -> Callable[..., int]:
    library = compiled("attention.cpp")
    library.prepare.restype = None
    library.prepare()
    function = getattr(library, f"attend_{NAMES[dtype]}")
    heads, integers, result = [ADDRESS] * 3, [ctypes.POINTER(INTEGER)], [ADDRESS] * 2
    function.argtypes = [*heads, *integers, ADDRESS, *integers, *[INTEGER] * 5, *result, INTEGER]
    function.restype = INTEGER
    return cast("Callable[..., int]", function)
