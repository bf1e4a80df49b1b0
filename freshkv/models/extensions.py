"""Everything that plugins can add, taken together."""

from __future__ import annotations

from typing import Any

from freshkv.core.plugins import PluginProblem
from freshkv.core.registry import DECODERS, POLICIES, Kind, installed_plugins, refuse, survey
from freshkv.models.registry import FAMILIES
from freshkv.models.tasks.registry import TASKS

KINDS: tuple[Kind[Any], ...] = (POLICIES, DECODERS, FAMILIES, TASKS)


def plugin_problems() -> tuple[PluginProblem, ...]:
    """What is wrong with the plugins of this environment and with what they add, of every kind."""
    return (*installed_plugins().problems, *(problem for kind in KINDS for problem in survey(kind).problems))


def check_plugins() -> None:
    """Raise a PluginError that lists everything that is wrong with the plugins of this environment."""
    refuse(plugin_problems())


def additions() -> dict[tuple[str, str], list[str]]:
    """Plugin and its distribution -> what it adds, such as ``policy dkv-decode``; only what works."""
    owners = installed_plugins().loaded
    found: dict[tuple[str, str], list[str]] = {(plugin.name, plugin.distribution): [] for plugin in owners}
    for kind in KINDS:
        for contribution in installed_plugins().contributions(kind.hook)[0]:
            key = (contribution.source.name, contribution.distribution)
            known = survey(kind).classes.items()
            found[key] += [f"{kind.word} {name}" for name, cls in known if cls in contribution.classes]
    return found
