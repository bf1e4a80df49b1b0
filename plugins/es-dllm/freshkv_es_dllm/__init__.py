"""ES-dLLM (arXiv:2603.10088) as the freshkv policy ``es-dllm``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_es_dllm.early_skipping import EarlySkipping

__all__ = ["EarlySkipping"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [EarlySkipping]
