"""dKV-Cache (arXiv:2505.15781) as freshkv policies: ``dkv-decode`` and ``dkv-greedy``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_dkv_cache.decode import DKVDecode
from freshkv_dkv_cache.greedy import DKVGreedy

__all__ = ["DKVDecode", "DKVGreedy"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [DKVDecode, DKVGreedy]
