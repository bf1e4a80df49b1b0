"""Sparse-dLLM (arXiv:2508.02558) as the freshkv policy ``sparse-dllm``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_sparse_dllm.eviction import SparseDLLM

__all__ = ["SparseDLLM"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [SparseDLLM]
