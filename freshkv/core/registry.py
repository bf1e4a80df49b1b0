"""Names to classes: those of freshkv itself, and what plugins add. One mechanism for every kind of thing."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from attrs import frozen

from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError, PluginError, SpecError
from freshkv.core.plugins import Objection, PluginProblem, Plugins, describe_error, load_plugins, shorten
from freshkv.core.policy import CachePolicy
from freshkv.core.spec import Configurable, describe_fields, parse_spec, split_spec

T = TypeVar("T")
C = TypeVar("C", bound=Configurable)

ITSELF = "freshkv itself"


class PluginWarning(UserWarning):
    """A plugin, or a part of one, was left out."""


@frozen(eq=False)
class Kind(Generic[T]):
    """A kind of thing that has names: where freshkv's own come from, and what a plugin's must be like."""

    word: str  #: "policy", as messages say it
    hook: str
    base: type[T]
    built_in: Callable[[], Mapping[str, type[T]]]
    object_to: Callable[[Any], Objection | None]  #: what is wrong with a concrete subclass of ``base``, besides names
    name_of: Callable[[Any], Any] = attrgetter("name")  #: may raise AttributeError
    name_field: str = "name"  #: what the author must set


@frozen(eq=False)
class Known(Generic[T]):
    """What there is of a kind, and what was left out."""

    classes: MappingProxyType[str, type[T]]
    problems: tuple[PluginProblem, ...]  #: with what plugins add of this kind


def collect(kind: Kind[T], plugins: Plugins) -> Known[T]:
    """Everything of a kind. A plugin's class that cannot be used is left out, and named among the problems."""
    known = dict(kind.built_in())
    owners = dict.fromkeys(known, ITSELF)
    contributions, problems = plugins.contributions(kind.hook)
    for contribution in contributions:
        for given in contribution.classes:
            objection = _object(kind, given, known, owners)
            if objection is not None:
                part = given.__qualname__ if inspect.isclass(given) else f"a {kind.word}"
                problems.append(contribution.source.problem(objection, part))
                continue
            name = str(kind.name_of(given))
            known[name] = given
            owners.setdefault(name, f"plugin '{contribution.source.name}' of {contribution.distribution}")
    return Known(MappingProxyType(known), tuple(problems))


@cache
def installed_plugins() -> Plugins:
    """The plugins of this environment, imported once."""
    return load_plugins()


@cache
def survey(kind: Kind[T]) -> Known[T]:
    """``collect`` for the plugins of this environment; nothing is warned of."""
    return collect(kind, installed_plugins())


def look_up(kind: Kind[T], *, strict: bool = False) -> MappingProxyType[str, type[T]]:
    """Name to class. What was left out is a warning, once; with ``strict`` it is a PluginError that lists it all."""
    found = survey(kind)
    problems = (*installed_plugins().problems, *found.problems)
    if strict:
        refuse(problems)
    for problem in problems:
        _warn_once(problem)
    return found.classes


def refuse(problems: Iterable[PluginProblem]) -> None:
    """Raise a PluginError that lists all problems, if there are any."""
    lines = [f"\n  {problem}" for problem in problems]
    if lines:
        raise PluginError(f"Installed plugins that do not work, where all must: {len(lines)}.{''.join(lines)}")


@cache
def _warn_once(problem: PluginProblem) -> None:
    warnings.warn(str(problem), PluginWarning, stacklevel=4)


def builtin_classes(package: str, base: type[C]) -> dict[str, type[C]]:
    """Concrete subclasses of ``base`` that the modules of ``package`` define, by name: being there is enough."""
    root = importlib.import_module(package)
    found: dict[str, type[C]] = {}
    for module_info in pkgutil.iter_modules(root.__path__, prefix=f"{package}."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            mine = inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
            if mine and not inspect.isabstract(value) and isinstance(getattr(value, "name", None), str):
                found[value.name] = value
    return dict(sorted(found.items()))


def is_name(text: object) -> bool:
    """Whether ``text`` can stand before the colon of a spec string."""
    try:
        return isinstance(text, str) and split_spec(text) == (text, {})
    except SpecError:
        return False


def _object(kind: Kind[Any], given: Any, known: Mapping[str, type], owners: Mapping[str, str]) -> Objection | None:
    try:
        return _object_to_class(kind, given) or _object_to_name(kind, given, known, owners)
    except Exception as error:  # a class may do anything when its attributes are read
        return Objection(f"it cannot be inspected ({describe_error(error)})", "correct the class")


def _object_to_class(kind: Kind[Any], given: Any) -> Objection | None:
    base = f"{kind.base.__module__.split('.')[0]}.{kind.base.__name__}"
    if not inspect.isclass(given):
        return Objection(f"{kind.hook} returned {shorten(given)}, which is not a class", f"return subclasses of {base}")
    if not issubclass(given, kind.base):
        return Objection(f"it is not a subclass of {kind.base.__name__}", f"make it a subclass of {base}")
    if inspect.isabstract(given):
        missing = sorted(getattr(given, "__abstractmethods__", ()))
        return Objection(f"it has no method {', no '.join(missing)}", f"write {', '.join(missing)}")
    return kind.object_to(given)


def _object_to_name(
    kind: Kind[Any], given: Any, known: Mapping[str, type], owners: Mapping[str, str]
) -> Objection | None:
    try:
        name = kind.name_of(given)
    except AttributeError:
        name = None
    if name is None or name == "":
        return Objection(f"it has no {kind.name_field}", f"give it a {kind.name_field}")
    if not is_name(name):
        return Objection(
            f"its {kind.name_field} is {name!r}", "use letters, digits, '-', '_' and '.' only, a letter first"
        )
    if name in known and known[name] is not given:
        taken = f"the {kind.name_field} '{name}' is taken by {known[name].__qualname__} of {owners[name]}"
        return Objection(taken, "rename one of the two" if owners[name] != ITSELF else "rename it")
    return None


def _object_to_options(cls: type[Configurable]) -> Objection | None:
    """What would fail later, when the class is listed or built from a spec string."""
    try:
        describe_fields(cls)
    except Exception as error:
        mend = "import the types of its fields when the module runs, not under TYPE_CHECKING"
        return Objection(f"the types of its fields cannot be read ({describe_error(error)})", mend)
    if not isinstance(getattr(cls, "paper", ""), str):
        return Objection("its paper is not text", "write the arXiv number and section as one string")
    return None


POLICIES: Kind[CachePolicy] = Kind(
    "policy",
    "freshkv_policies",
    CachePolicy,  # type: ignore[type-abstract]
    partial(builtin_classes, "freshkv.policies", CachePolicy),  # type: ignore[type-abstract]
    _object_to_options,
)
DECODERS: Kind[Decoder] = Kind(
    "decoder",
    "freshkv_decoders",
    Decoder,  # type: ignore[type-abstract]
    partial(builtin_classes, "freshkv.decoders", Decoder),  # type: ignore[type-abstract]
    _object_to_options,
)


def policies(*, strict: bool = False) -> MappingProxyType[str, type[CachePolicy]]:
    """Name to class of every cache policy, built-in and plugin; ``strict``: PluginError if a plugin was left out."""
    return look_up(POLICIES, strict=strict)


def decoders(*, strict: bool = False) -> MappingProxyType[str, type[Decoder]]:
    """Name to class of every decoder, built-in and plugin; ``strict``: PluginError if a plugin was left out."""
    return look_up(DECODERS, strict=strict)


def resolve_policy(policy: str | CachePolicy) -> CachePolicy:
    """A policy from its name, spec string, or itself."""
    return _resolve(policy, "policy", CachePolicy, policies)  # type: ignore[type-abstract]


def resolve_decoder(decoder: str | Decoder) -> Decoder:
    """A decoder from its name, spec string, or itself."""
    return _resolve(decoder, "decoder", Decoder, decoders)  # type: ignore[type-abstract]


def _resolve(value: str | C, kind: str, base: type[C], known: Any) -> C:
    if isinstance(value, base):
        return value
    if isinstance(value, str):
        found: C = parse_spec(value, kind, known())
        return found
    hint = " (build it: a class is not yet a policy)" if inspect.isclass(value) else ""
    raise InputError(f"{kind} is {value!r}{hint}; expected a name, 'name:field=value,...' or a {base.__name__}.")
