"""Entry points and hooks: how an installed distribution adds policies, decoders, models and tasks.

Each plugin is loaded and checked by itself. One that does not work is left out and described by a PluginProblem; it
never keeps freshkv, or another plugin, from working.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distribution, distributions
from inspect import getattr_static, isclass, isfunction
from typing import Any

import pluggy
from attrs import frozen

from freshkv.core.errors import did_you_mean
from freshkv.core.version import VERSION

GROUP = "freshkv"

#: The version of the hooks and of the classes that they return. A plugin may name the one that it is written for,
#: ``freshkv_api = 1`` beside its hooks; one that names none is taken to be written for this one.
API_VERSION = 1
API_ATTRIBUTE = "freshkv_api"

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


HOOKS = tuple(name for name in vars(Hooks) if name.startswith("freshkv_"))


@frozen
class Objection:
    """Why something cannot be used, and what its author can do; sentences without their full stops."""

    reason: str
    mend: str


@frozen
class PluginProblem:
    """A plugin, or a part of one, that was left out."""

    plugin: str  #: name of the entry point
    distribution: str  #: name and version
    reason: str
    mend: str = ""
    part: str = ""  #: what was left out; empty: the whole plugin
    facts: tuple[tuple[str, str], ...] = ()  #: what ``freshkv doctor`` tells besides

    def __str__(self) -> str:
        whole = f"plugin '{self.plugin}' of {self.distribution}"
        what = f"{self.part} of {whole}" if self.part else whole
        sentences = [f"{what} was skipped: {self.reason}", *([f"To mend it, {self.mend}"] if self.mend else [])]
        line = " ".join(text if text.endswith((".", "?", "!")) else f"{text}." for text in sentences)
        return " ".join(line.split())  # one line, whatever a plugin's own messages hold


@frozen(eq=False)
class Plugin:
    """An installed plugin that works, as far as can be told before its hooks are called."""

    name: str  #: of the entry point
    distribution: str  #: name and version
    manager: pluggy.PluginManager  #: holds this plugin alone
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hooks that it implements."""
        return tuple(hook for hook in HOOKS if getattr(self.manager.hook, hook).get_hookimpls())

    def problem(self, objection: Objection, part: str = "") -> PluginProblem:
        """What is wrong with ``part`` of this plugin."""
        return PluginProblem(self.name, self.distribution, objection.reason, objection.mend, part, self.facts)


@frozen
class Contribution:
    """What one plugin adds through one hook."""

    source: Plugin
    classes: tuple[Any, ...]

    @property
    def distribution(self) -> str:
        """Name and version of the distribution that it comes from."""
        return self.source.distribution


@frozen(eq=False)
class Plugins:
    """All installed plugins: those that work, and what is wrong with the others."""

    loaded: tuple[Plugin, ...]
    problems: tuple[PluginProblem, ...] = ()

    def contributions(self, hook: str) -> tuple[list[Contribution], list[PluginProblem]]:
        """What each plugin returns from ``hook``; one whose hook raises is named among the problems."""
        found, problems = [], []
        for plugin in self.loaded:
            if hook not in plugin.hooks:
                continue
            answer = call_hook(plugin, hook)
            if isinstance(answer, Objection):
                problems.append(plugin.problem(answer, part=f"hook {hook}"))
            else:
                found.append(Contribution(plugin, answer))
        return found, problems


@cache
def call_hook(plugin: Plugin, hook: str) -> tuple[Any, ...] | Objection:
    """What a plugin returns from a hook, as one tuple; asked once, so that it is always the same classes."""
    try:
        found: list[Any] = []
        for result in getattr(plugin.manager.hook, hook)():
            if isclass(result) or isinstance(result, str) or not isinstance(result, Iterable):
                return Objection(f"it returned {shorten(result)}, not a list", "return a list of classes")
            found.extend(result)
        return tuple(found)
    except (Exception, SystemExit) as error:
        return Objection(f"it raised {describe_error(error)}", _mend_error(error, plugin.distribution))


def load_plugins() -> Plugins:
    """Import every entry point of the group ``freshkv``, in the order of their distributions' names."""
    loaded: list[Plugin] = []
    problems: list[PluginProblem] = []
    for found in _distributions():
        title = f"{found.name} {found.version}"
        try:
            entries = sorted(found.entry_points.select(group=GROUP), key=lambda entry: entry.name)
        except Exception as error:
            reason = f"its entry points cannot be read ({describe_error(error)})"
            problems.append(PluginProblem("?", title, reason, "write them as name = module, and install it again"))
            continue
        for entry in entries:
            admitted = admit(entry, title, _facts(entry, found))
            (loaded if isinstance(admitted, Plugin) else problems).append(admitted)  # type: ignore[arg-type]
    return Plugins(tuple(loaded), tuple(problems))


def admit(entry: EntryPoint, title: str, facts: tuple[tuple[str, str], ...] = ()) -> Plugin | PluginProblem:
    """Import what the entry point names and check it; ``title``: distribution and version."""
    try:
        target = entry.load()
    except (Exception, SystemExit) as error:
        reason = f"it cannot be imported ({describe_error(error)})"
        where = (("raised at", last_line(error)),)
        return PluginProblem(entry.name, title, reason, _mend_error(error, title), facts=facts + where)
    return inspect_plugin(target, entry.name, title, facts)


def inspect_plugin(
    target: Any, name: str, title: str, facts: tuple[tuple[str, str], ...] = ()
) -> Plugin | PluginProblem:
    """Check that ``target``, a module or an object with hooks, is a plugin for this version."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(Hooks)
    try:
        objection = _object_to_version(target, title) or _register(manager, target, name)
    except Exception as error:
        objection = Objection(f"it cannot be inspected ({describe_error(error)})", _mend_error(error, title))
    plugin = Plugin(name, title, manager, facts)
    return plugin if objection is None else plugin.problem(objection)


def describe_error(error: BaseException) -> str:
    """Type and message of an error, in one line of bearable length."""
    return f"{type(error).__name__}: {shorten(error, str)}".rstrip(": ")


def last_line(error: BaseException) -> str:
    """``file, line n`` where ``error`` was raised, as far as it is not the import system's own code."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if len(frames) > 1 else "the import itself"


def _register(manager: pluggy.PluginManager, target: Any, name: str) -> Objection | None:
    """Let pluggy check the plugin's hooks."""
    try:
        manager.register(target, name=name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        return _explain_hook(manager, str(error))
    if any(getattr(manager.hook, hook).get_hookimpls() for hook in HOOKS):
        return None
    unmarked = [hook for hook in HOOKS if isfunction(getattr_static(target, hook, None))]
    if unmarked:
        return Objection(f"its function {unmarked[0]} is not marked as a hook", "write @freshkv.hookimpl above it")
    return Objection("it implements no hook", f"implement one of {', '.join(HOOKS)}, marked with @freshkv.hookimpl")


def _explain_hook(manager: pluggy.PluginManager, message: str) -> Objection:
    unknown = [name for name in vars(manager.hook) if not name.startswith("_") and name not in HOOKS]
    if unknown:
        nearest = get_close_matches(unknown[0], HOOKS, n=1)
        reason = f"there is no hook '{unknown[0]}'.{did_you_mean(unknown[0], nearest)}"
        return Objection(reason, "rename it" if nearest else f"use a name of {', '.join(HOOKS)}")
    facts = [line.strip() for line in message.splitlines()[1:]]  # the first line names the plugin, as we do
    return Objection(f"a hook has the wrong signature ({'; '.join(facts)})", "write it without arguments")


def _object_to_version(target: Any, title: str) -> Objection | None:
    version = getattr(target, API_ATTRIBUTE, API_VERSION)
    if version == API_VERSION and not isinstance(version, bool):
        return None
    if not isinstance(version, int) or isinstance(version, bool):
        return Objection(f"its {API_ATTRIBUTE} is {shorten(version)}", f"set {API_ATTRIBUTE} = {API_VERSION}")
    name = title.split(maxsplit=1)[0]
    reason = f"it is written for version {version} of the plugin interface, and freshkv {VERSION} has {API_VERSION}"
    mend = f"upgrade freshkv or install an older {name}" if version > API_VERSION else f"upgrade {name}"
    return Objection(reason, mend)


def _mend_error(error: BaseException, title: str) -> str:
    name = title.split(maxsplit=1)[0]
    missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
    if missing is not None and missing.split(".")[0] == GROUP:
        return f"install versions of {name} and freshkv that belong together (this is freshkv {VERSION})"
    if isinstance(error, ModuleNotFoundError) and missing:
        return f"install what provides the module {missing}, or pip uninstall {name}"
    return f"upgrade or correct {name}, or pip uninstall {name}"


def _distributions() -> Iterator[Distribution]:
    """Those with entry points of our group, each once, in the version that would be imported."""
    names: dict[str, str] = {}
    for found in distributions():
        # the text, because one distribution with damaged entry points makes importlib.metadata.entry_points() fail
        if f"[{GROUP}]" in (found.read_text("entry_points.txt") or "") and found.metadata["Name"]:
            names.setdefault(re.sub(r"[-_.]+", "-", found.name).lower(), found.name)
    for _, name in sorted(names.items()):
        yield distribution(name)


def _facts(entry: EntryPoint, found: Distribution) -> tuple[tuple[str, str], ...]:
    needs = [requirement for requirement in found.requires or () if re.match(rf"{GROUP}\b(?!-)", requirement)]
    return (
        ("entry point", f"{entry.name} = {entry.value}"),
        ("installed in", str(found.locate_file(""))),
        ("asks for", ", ".join(needs) or "any freshkv"),
    )


def shorten(value: object, form: Any = repr) -> str:
    """The value as text in one line of bearable length."""
    try:
        text = " ".join(form(value).split())
    except Exception:  # a plugin's own __repr__ or __str__
        text = f"a {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:197]}..."
