"""Where a class comes from: the package itself, a plugin's distribution, or somebody's own module."""

from __future__ import annotations

from freshkv.core.registry import installed_plugins

BUILT_IN = "built-in"
HOOKS = ("freshkv_policies", "freshkv_decoders", "freshkv_models", "freshkv_tasks")


def origin_of(cls: type) -> str:
    """``built-in``, a plugin's distribution with its version, or the module that defines ``cls``."""
    if cls.__module__.split(".")[0] == "freshkv":
        return BUILT_IN
    for hook in HOOKS:
        contributions, _ = installed_plugins().contributions(hook)
        for contribution in contributions:
            if cls in contribution.classes:
                return contribution.distribution
    return cls.__module__
