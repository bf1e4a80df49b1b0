"""What takes long is computed once, also where pytest-xdist has several workers, each with fixtures of its own."""

from __future__ import annotations

import os

import torch
from filelock import FileLock


def computed_once(factory, name, make):
    """What ``make(folder)`` gives, in one of the workers; ``factory`` is pytest's ``tmp_path_factory``.

    It must survive ``torch.save``.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return make(factory.mktemp(name))
    shared = factory.getbasetemp().parent  # of all workers of this run
    kept = shared / f"{name}.pt"
    with FileLock(f"{kept}.lock"):
        if not kept.is_file():
            partial = kept.with_suffix(".partial")
            torch.save(make(factory.mktemp(name)), partial)
            partial.replace(kept)
    return torch.load(kept, weights_only=False)
