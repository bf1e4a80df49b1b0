"""Vicinity refresh of dInfer (arXiv:2510.08666) as the freshkv policy ``vicinity``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_vicinity.vicinity import VicinityRefresh

__all__ = ["VicinityRefresh"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [VicinityRefresh]
