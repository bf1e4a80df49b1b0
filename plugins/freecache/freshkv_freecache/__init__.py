"""FreeCache (arXiv:2505.21467) as the freshkv policy ``freecache``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_freecache.freecache import FreeCache

__all__ = ["FreeCache"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [FreeCache]
