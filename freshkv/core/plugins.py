"""Entry points and hooks: how an installed distribution adds policies, decoders, models and tasks."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

import pluggy
from attrs import frozen

GROUP = "freshkv"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Hooks:
    """The hooks that a plugin may implement, each marked with ``freshkv.hookimpl``."""

    @hookspec
    def freshkv_policies(self) -> Iterable[type]:
        """Subclasses of CachePolicy."""
        return ()

    @hookspec
    def freshkv_decoders(self) -> Iterable[type]:
        """Subclasses of Decoder."""
        return ()

    @hookspec
    def freshkv_models(self) -> Iterable[type]:
        """Transformers models that implement the Network protocol, each with its ``config_class``."""
        return ()

    @hookspec
    def freshkv_tasks(self) -> Iterable[type]:
        """Subclasses of Task."""
        return ()


@frozen
class PluginProblem:
    """A plugin that was left out, and why."""

    plugin: str
    distribution: str
    reason: str

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' of {self.distribution} was skipped: {self.reason}"


@frozen
class Contribution:
    """What one plugin adds through one hook."""

    plugin: str
    distribution: str
    classes: tuple[type, ...]


@frozen(eq=False)
class Plugins:
    """All installed plugins: those that work, and what is wrong with the others."""

    manager: pluggy.PluginManager
    distributions: dict[str, str]  #: plugin name to distribution
    problems: tuple[PluginProblem, ...]

    def contributions(self, hook: str) -> tuple[list[Contribution], list[PluginProblem]]:
        """What each plugin returns from ``hook``; a plugin whose hook raises is left out."""
        found, problems = [], []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            name = implementation.plugin_name
            distribution = self.distributions.get(name, "unknown")
            try:
                classes = tuple(implementation.function() or ())
            except Exception as error:
                problems.append(PluginProblem(name, distribution, f"{hook} raised {type(error).__name__}: {error}"))
            else:
                found.append(Contribution(name, distribution, classes))
        return found, problems


def load_plugins() -> Plugins:
    """Import every entry point of the group ``freshkv``; one that fails is left out and named among the problems."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    distributions: dict[str, str] = {}
    problems = []
    for entry in entry_points(group=GROUP):
        distribution = _distribution(entry)
        try:
            manager.register(entry.load(), name=entry.name)
        except Exception as error:
            problems.append(PluginProblem(entry.name, distribution, f"{type(error).__name__}: {error}"))
        else:
            distributions[entry.name] = distribution
    return Plugins(manager, distributions, tuple(problems))


def _distribution(entry: EntryPoint) -> str:
    return "unknown" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
