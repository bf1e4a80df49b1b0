"""Networks that freshkv can run: LLaDA, Dream, and what loads them."""

from freshkv.models.dream import DreamConfig, DreamModel
from freshkv.models.llada import LLaDAConfig, LLaDAModelLM
from freshkv.models.loading import load
from freshkv.models.published import published_defaults, special_tokens
from freshkv.models.registry import families

__all__ = [
    "DreamConfig",
    "DreamModel",
    "LLaDAConfig",
    "LLaDAModelLM",
    "families",
    "load",
    "published_defaults",
    "special_tokens",
]
