"""Names to classes: those of a built-in folder, and what plugins add."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError
from freshkv.core.plugins import Contribution, PluginProblem, Plugins, load_plugins
from freshkv.core.policy import CachePolicy
from freshkv.core.spec import Configurable, parse_spec

T = TypeVar("T", bound=Configurable)


class PluginWarning(UserWarning):
    """A plugin was left out."""


@cache
def installed_plugins() -> Plugins:
    """The plugins of this environment, imported once."""
    return load_plugins()


@cache
def policies() -> MappingProxyType[str, type[CachePolicy]]:
    """Name to class of every cache policy, built-in and plugin."""
    return _collect("freshkv.policies", "freshkv_policies", CachePolicy)  # type: ignore[type-abstract]


@cache
def decoders() -> MappingProxyType[str, type[Decoder]]:
    """Name to class of every decoder, built-in and plugin."""
    return _collect("freshkv.decoders", "freshkv_decoders", Decoder)  # type: ignore[type-abstract]


def resolve_policy(policy: str | CachePolicy) -> CachePolicy:
    """A policy from its name, spec string, or itself."""
    return _resolve(policy, "policy", CachePolicy, policies)  # type: ignore[type-abstract]


def resolve_decoder(decoder: str | Decoder) -> Decoder:
    """A decoder from its name, spec string, or itself."""
    return _resolve(decoder, "decoder", Decoder, decoders)  # type: ignore[type-abstract]


def builtin_classes(package: str, base: type[T]) -> dict[str, type[T]]:
    """Concrete subclasses of ``base`` that the modules of ``package`` define, by name: being there is enough."""
    root = importlib.import_module(package)
    found: dict[str, type[T]] = {}
    for module_info in pkgutil.iter_modules(root.__path__, prefix=f"{package}."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            mine = inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
            if mine and not inspect.isabstract(value) and isinstance(getattr(value, "name", None), str):
                found[value.name] = value
    return dict(sorted(found.items()))


def _collect(package: str, hook: str, base: type[T]) -> MappingProxyType[str, type[T]]:
    plugins = installed_plugins()
    contributions, problems = plugins.contributions(hook)
    known = builtin_classes(package, base)
    for contribution in contributions:
        cls: Any
        for cls in contribution.classes:
            reason = _objection(cls, base, known)
            if reason is None:
                known[cls.name] = cls
            else:
                problems.append(PluginProblem(contribution.plugin, contribution.distribution, reason))
    for problem in (*plugins.problems, *problems):
        warnings.warn(str(problem), PluginWarning, stacklevel=3)
    return MappingProxyType(known)


def _objection(cls: Any, base: type[T], known: dict[str, type[T]]) -> str | None:
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        return f"{cls!r} is not a subclass of {base.__name__}"
    name = getattr(cls, "name", None)
    if not isinstance(name, str):
        return f"{cls.__qualname__} has no name"
    if name in known:
        other = known[name]
        return f"the name '{name}' is taken by {other.__module__}.{other.__qualname__}"
    return None


def _resolve(value: str | T, kind: str, base: type[T], known: Any) -> T:
    if isinstance(value, base):
        return value
    if isinstance(value, str):
        found: T = parse_spec(value, kind, known())
        return found
    hint = " (build it: a class is not yet a policy)" if inspect.isclass(value) else ""
    raise InputError(f"{kind} is {value!r}{hint}; expected a name, 'name:field=value,...' or a {base.__name__}.")


__all__ = [
    "Contribution",
    "PluginWarning",
    "builtin_classes",
    "decoders",
    "installed_plugins",
    "policies",
    "resolve_decoder",
    "resolve_policy",
]
