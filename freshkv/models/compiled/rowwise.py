"""What happens to each row between products, in one pass over it: norm, rotary embedding, gate."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.errors import InputError
from freshkv.models.compiled.compiler import ADDRESS, INTEGER, compiled

#: dtypes that it exists for, and what their functions are called
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}

Function = Callable[..., None]


@frozen(eq=False)
class Rowwise:
    """Computes in float32, whatever the dtype of the rows, and rounds once. A row does not depend on its neighbours."""

    _norm: Function
    _gate: Function
    _rotate: Function

    def norm(self, rows: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Root mean square norm of ``rows`` [..., width], times ``weight`` [width] of the same dtype."""
        rows = rows.contiguous()
        normed, width = torch.empty_like(rows), rows.shape[-1]
        _require(weight, rows.dtype, [width], "A norm's weight")
        self._norm(
            rows.data_ptr(),
            weight.data_ptr(),
            eps,
            normed.data_ptr(),
            rows.numel() // width,
            width,
            torch.get_num_threads(),
        )
        return normed

    def gate(self, both: Tensor) -> Tensor:
        """Silu of the first half of ``both`` [n, 2 * width] times the second: [n, width]."""
        both = both.contiguous()
        count, width = both.shape[0], both.shape[1] // 2
        gated = both.new_empty(count, width)
        self._gate(both.data_ptr(), gated.data_ptr(), count, width, torch.get_num_threads())
        return gated

    def rotate(self, heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Rotary embedding of ``heads`` [n, heads, width]; the tables, float32 [n, width], are those of ``Rotary``."""
        heads, cosine, sine = heads.contiguous(), cosine.contiguous(), sine.contiguous()
        for table in (cosine, sine):
            _require(table, torch.float32, [heads.shape[0], heads.shape[-1]], "A rotary table")
        rotated = torch.empty_like(heads)
        self._rotate(
            heads.data_ptr(),
            cosine.data_ptr(),
            sine.data_ptr(),
            rotated.data_ptr(),
            *heads.shape,
            torch.get_num_threads(),
        )
        return rotated


def _require(found: Tensor, dtype: torch.dtype, shape: list[int], what: str) -> None:
    if list(found.shape) != shape or found.dtype != dtype:
        raise InputError(f"{what} is {found.dtype} {list(found.shape)}; expected {dtype} {shape}.")


@cache
def rowwise_for(dtype: torch.dtype) -> Rowwise:
    """Of ``dtype``, float32 or bfloat16. Raises InputError if it cannot be compiled."""
    library, name = compiled("rowwise.cpp"), NAMES[dtype]
    norm, gate, rotate = (getattr(library, f"{function}_{name}") for function in ("norm", "gate", "rotate"))
    norm.argtypes = [ADDRESS, ADDRESS, ctypes.c_float, ADDRESS, INTEGER, INTEGER, INTEGER]
    gate.argtypes = [ADDRESS, ADDRESS, INTEGER, INTEGER, INTEGER]
    rotate.argtypes = [ADDRESS, ADDRESS, ADDRESS, ADDRESS, INTEGER, INTEGER, INTEGER, INTEGER]
    for function in (norm, gate, rotate):
        function.restype = None
    return Rowwise(norm, gate, rotate)
