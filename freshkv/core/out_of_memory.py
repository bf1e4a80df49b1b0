"""How a lack of memory shows: each allocator has its own error."""

from __future__ import annotations

import gc
import re

import torch

#: words of a RuntimeError by which allocators and libraries of devices say it
_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)
_SIZE = re.compile(r"tried to allocate ([\d.]+ \w+)", re.IGNORECASE)


def shortage(error: BaseException) -> str | None:
    """In a few words what could not be had, if ``error`` or what caused it is a lack of memory; None if it is not."""
    cause: BaseException | None = error
    while cause is not None:
        if _is_shortage(cause):
            size = _SIZE.search(str(cause))
            return "out of memory" if size is None else f"out of memory: tried to allocate {size[1]}"
        cause = cause.__cause__
    return None


def _is_shortage(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def release(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
