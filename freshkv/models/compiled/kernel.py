"""The compiled product of one dtype."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from attrs import frozen
from torch import Tensor

from freshkv.models.compiled.compiler import ADDRESS, INTEGER, compiled, unusable

SOURCES = {torch.float32: "float32.cpp", torch.bfloat16: "bfloat16.cpp"}


@frozen(eq=False)
class Kernel:
    """Multiplies rows with weights that were laid out for it."""

    panel_width: int  #: outputs that lie side by side; weights and products are padded to a multiple of it
    _library: ctypes.CDLL

    def multiply(self, rows: Tensor, weight: Tensor, bias: Tensor | None, products: Tensor) -> None:
        """Fill ``products`` [count, padded outputs] with ``rows`` [count, inputs] times ``weight``, plus ``bias``.

        The elements of a row lie side by side; ``bias`` is float32 [padded outputs]. Raises MemoryError where there is
        none for the rows' own layout.
        """
        count, inner = rows.shape
        failed = self._library.multiply(
            rows.data_ptr(),
            rows.stride(0),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            products.data_ptr(),
            count,
            inner,
            products.shape[1],
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError(f"No memory to lay out {count} rows of {inner} elements for a compiled product.")


@cache
def kernel_for(dtype: torch.dtype) -> Kernel:
    """Of ``dtype``, float32 or bfloat16. Raises InputError if it cannot be compiled, or not used on this processor."""
    library = compiled(SOURCES[dtype])
    library.multiply.argtypes = [ADDRESS, INTEGER, ADDRESS, ADDRESS, ADDRESS, INTEGER, INTEGER, INTEGER, INTEGER]
    for function in (library.multiply, library.prepare, library.panel_width):
        function.restype = INTEGER
    if library.prepare() != 0:
        raise unusable("this processor, its system or the compiler lacks that")
    return Kernel(library.panel_width(), library)
