"""Elastic-Cache (arXiv:2510.14973) as the freshkv policy ``elastic``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_elastic_cache.elastic import ElasticCache

__all__ = ["ElasticCache"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [ElasticCache]
