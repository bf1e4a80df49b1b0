"""The largest logit of each row, where it is, and what all of them add up to, in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor

from freshkv.models.compiled.compiler import ADDRESS, INTEGER, compiled


def summarise(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A ``LogitSummary`` of freshkv's own, of float32 ``logits`` [n, vocabulary]."""
    rows = logits if logits.stride(1) == 1 else logits.contiguous()
    count, vocabulary = rows.shape
    largest, sums = rows.new_empty(count), rows.new_empty(count)
    places = torch.empty(count, dtype=torch.long, device=rows.device)
    _function()(
        rows.data_ptr(),
        rows.stride(0),
        count,
        vocabulary,
        largest.data_ptr(),
        places.data_ptr(),
        sums.data_ptr(),
        torch.get_num_threads(),
    )
    return largest, places, sums


@cache
def _function() -> Callable[..., None]:
    function = compiled("logits.cpp").summarise
    function.argtypes = [ADDRESS, INTEGER, INTEGER, INTEGER, ADDRESS, ADDRESS, ADDRESS, INTEGER]
    function.restype = None
    return cast("Callable[..., None]", function)
