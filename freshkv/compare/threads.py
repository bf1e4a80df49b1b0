"""How many CPU threads a run uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from freshkv.models.registry import bundled_models


def thread_count(model: str, count: int | None) -> int:
    """``count``; None: one for a bundled model, whose steps are too short to share, else as many as torch is set to."""
    if count is not None:
        return count
    return 1 if model in bundled_models() else torch.get_num_threads()


@contextmanager
def cpu_threads(model: str, count: int | None) -> Iterator[None]:
    """Run with the threads of ``thread_count``."""
    before = torch.get_num_threads()
    torch.set_num_threads(thread_count(model, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
