"""How many CPU threads a run uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from freshkv.models.registry import bundled_models


@contextmanager
def cpu_threads(model: str, count: int | None) -> Iterator[None]:
    """Run with ``count`` threads; None: one for a bundled model, whose steps are too short to share, else torch's."""
    before = torch.get_num_threads()
    if count is None:
        count = 1 if model in bundled_models() else before
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
