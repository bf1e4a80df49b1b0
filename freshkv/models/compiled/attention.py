"""Attention of few rows, of any number in bfloat16, with what each row pays; and what keys receive from many."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.rows import RowSet
from freshkv.models.compiled.compiler import ADDRESS, INTEGER, compiled
from freshkv.models.compiled.rowwise import NAMES

#: rows of a sequence for which it is faster than torch's own, where nobody asks what they pay, and where somebody does
WORTH_IT = {torch.float32: range(12, 1025), torch.bfloat16: range(1, sys.maxsize)}
WORTH_IT_PAID = {torch.float32: range(1, 1025), torch.bfloat16: range(1, 1025)}

#: bfloat16 heads of whole tiles are multiplied by the processor's unit for them
TILE_WIDTH = 32


class CompiledAttention:
    """A ``FewRowsAttention`` of freshkv's own, for float32 and bfloat16. Sums, softmax and what rows pay are float32.

    It is as exact as a fused kernel: probabilities of bfloat16 are rounded to meet the values.
    """

    def fits(self, queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None, *, paid: bool) -> bool:
        """See ``FewRowsAttention``."""
        worth_it = WORTH_IT_PAID if paid else WORTH_IT
        return _can(queries, keys, visible) and rows.widest in worth_it[queries.dtype]

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None, *, paid: bool
    ) -> tuple[Tensor, Tensor | None]:
        """See ``FewRowsAttention``. Raises MemoryError where there is none for the scores of a panel."""
        seq = keys.shape[2]
        attended = torch.empty_like(queries, memory_format=torch.contiguous_format)
        shares = queries.new_empty(seq, rows.count, dtype=torch.float32) if paid else None
        values = values if values.stride(-1) == 1 else values.contiguous()
        given = _Rows(queries, keys, rows, visible, (values.stride(0), values.stride(1), values.stride(2)))
        failed = _functions(queries.dtype).attend(
            *given.arguments,
            values.data_ptr(),
            attended.data_ptr(),
            None if shares is None else shares.data_ptr(),
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError(f"No memory for the attention of {rows.count} rows to {seq} keys.")
        return attended, None if shares is None else shares.t()

    def weigh(
        self, queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None
    ) -> Tensor | None:
        """See ``FewRowsAttention``. Raises MemoryError as above."""
        if weights.dtype != torch.float32 or not _can(queries, keys, visible):
            return None
        given, weights = _Rows(queries, keys, rows, visible), weights.contiguous()
        received = weights.new_empty(keys.shape[1:3])
        failed = _functions(queries.dtype).receive(
            *given.arguments, weights.data_ptr(), received.data_ptr(), torch.get_num_threads()
        )
        if failed:
            raise MemoryError(f"No memory for what {keys.shape[2]} keys receive from {rows.count} rows.")
        return received


def _can(queries: Tensor, keys: Tensor, visible: Tensor | None) -> bool:
    plain = queries.dtype in NAMES and keys.shape[2] > 0 and (visible is None or visible.ndim == 2)
    side_by_side = queries.stride(-1) == 1 and keys.stride(-1) == 1
    slow = queries.dtype == torch.bfloat16 and queries.shape[-1] % TILE_WIDTH > 0
    return plain and side_by_side and not slow


class _Rows:
    """Rows and keys as the library takes them; holds what ``arguments`` point to."""

    def __init__(
        self,
        queries: Tensor,
        keys: Tensor,
        rows: RowSet,
        visible: Tensor | None,
        value_strides: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        kv_heads, batch, seq, width = keys.shape
        self._held = (queries, keys, None if visible is None else visible.expand(batch, seq).contiguous())
        seen = self._held[2]
        strides = (queries.stride(1), queries.stride(0), *keys.stride()[:3], *value_strides)
        self.arguments = (
            queries.data_ptr(),
            keys.data_ptr(),
            (INTEGER * 8)(*strides),
            None if seen is None else seen.data_ptr(),
            (INTEGER * batch)(*rows.counts),
            batch,
            queries.shape[1],
            kv_heads,
            seq,
            width,
        )


@frozen(eq=False)
class _Functions:
    attend: Callable[..., int]
    receive: Callable[..., int]


@cache
def _functions(dtype: torch.dtype) -> _Functions:
    library = compiled("attention.cpp")
    library.prepare.restype = None
    library.prepare()
    attend, receive = (getattr(library, f"{function}_{NAMES[dtype]}") for function in ("attend", "receive"))
    integers = ctypes.POINTER(INTEGER)
    rows = [ADDRESS, ADDRESS, integers, ADDRESS, integers, *[INTEGER] * 5]
    attend.argtypes = [*rows, ADDRESS, ADDRESS, ADDRESS, INTEGER]
    receive.argtypes = [*rows, ADDRESS, ADDRESS, INTEGER]
    for function in (attend, receive):
        function.restype = INTEGER
    return _Functions(attend, receive)
