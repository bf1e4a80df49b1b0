"""DPad (arXiv:2508.14148) as the freshkv policy ``dpad``."""

from __future__ import annotations

from freshkv import CachePolicy, hookimpl
from freshkv_dpad.suffix_dropout import DPad

__all__ = ["DPad"]


@hookimpl
def freshkv_policies() -> list[type[CachePolicy]]:
    """What this plugin adds."""
    return [DPad]
