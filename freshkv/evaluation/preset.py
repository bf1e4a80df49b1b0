"""Published settings as data: a file for each paper, a cascade of rules by task, kind of model and policy."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import attrs
from attrs import field, frozen
from attrs.validators import matches_re

from freshkv.core.errors import FreshkvError, InputError, did_you_mean, unknown_name
from freshkv.core.registry import resolve_policy
from freshkv.core.spec import split_spec
from freshkv.evaluation.task_settings import TaskSettings

TASKS = ("gsm8k", "math-500", "humaneval", "mbpp")
VARIANTS = ("llada-base", "llada-instruct", "dream-base", "dream-instruct")
ONE_BLOCK = "one"
_CONDITIONS = ("tasks", "variants", "policies")
_SET_BY_A_RULE = frozenset(attribute.name for attribute in attrs.fields(TaskSettings)) - {
    *("task", "preset", "overridden")
}


def _tasks(values: Iterable[str]) -> tuple[str, ...]:
    return _among(values, TASKS, "task")


def _variants(values: Iterable[str]) -> tuple[str, ...]:
    return _among(values, VARIANTS, "kind of model")


def _among(values: Iterable[str], known: Sequence[str], what: str) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise unknown_name(what, value, known)
    return tuple(values)


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _rules(values: Iterable[Rule]) -> tuple[Rule, ...]:
    return tuple(values)


def _fixed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(values))


@frozen(kw_only=True)
class Rule:
    """Values, and when they apply. Empty conditions always hold."""

    tasks: tuple[str, ...] = field(default=(), converter=_tasks)
    variants: tuple[str, ...] = field(default=(), converter=_variants)
    policies: tuple[str, ...] = field(default=(), converter=_names)  #: names, without options
    values: Mapping[str, Any] = field(converter=_fixed)

    def __attrs_post_init__(self) -> None:
        for name in self.values:
            if name not in _SET_BY_A_RULE:
                hint = did_you_mean(name, _SET_BY_A_RULE)
                raise InputError(f"A rule of a preset sets '{name}', which is no setting of a task.{hint}")
        if "policy" in self.values:
            policy = resolve_policy(self.values["policy"])
            if self.policies != (policy.name,):
                raise InputError(
                    f"A rule sets the options of {policy.name}, but applies to {self.policies or 'all policies'}; "
                    f'expected policies = ["{policy.name}"].'
                )

    def applies(self, task: str, variant: str, policy: str) -> bool:
        """Whether all conditions hold."""
        pairs = ((self.tasks, task), (self.variants, variant), (self.policies, policy))
        return all(not allowed or value in allowed for allowed, value in pairs)


@frozen(kw_only=True)
class Preset:
    """The settings of one paper. Every combination it covers is built when it is made, so that none can be wrong."""

    name: str = field(validator=matches_re(r"[a-z0-9-]+"))
    paper: str = field(validator=matches_re(r"arXiv:\d{4}\.\d{5}"))
    source: str = field(validator=matches_re(r"https://.+"))  #: where the numbers were read
    about: str
    tasks: tuple[str, ...] = field(converter=_tasks)
    variants: tuple[str, ...] = field(converter=_variants)
    differences: tuple[str, ...] = field(default=(), converter=_names)  #: what is not as the paper has it
    rules: tuple[Rule, ...] = field(converter=_rules)

    def __attrs_post_init__(self) -> None:
        policies = {"none", *(policy for rule in self.rules for policy in rule.policies)}
        for task in self.tasks:
            for variant in self.variants:
                for policy in policies:
                    try:
                        self.settings(task, variant, policy)
                    except (FreshkvError, TypeError) as error:
                        raise InputError(f"Preset {self.name}, {task}, {variant}, {policy}: {error}") from error

    @classmethod
    def read(cls, name: str, text: str) -> Preset:
        """From the text of a TOML file. Raises InputError."""
        try:
            facts = tomllib.loads(text)
            rules = [_rule(facts_of_rule) for facts_of_rule in facts.pop("rules", [])]
            return cls(name=name, rules=rules, **facts)
        except (tomllib.TOMLDecodeError, TypeError, FreshkvError) as error:
            raise InputError(f"Preset {name} cannot be read: {error}") from error

    def settings(
        self, task: str, variant: str, policy: str, overrides: Mapping[str, Any] | None = None
    ) -> TaskSettings:
        """What ``task`` is run with. ``policy`` is a spec; its fields win over the published ones.

        ``overrides`` win over everything. Raises InputError for a task or model that the preset does not cover.
        """
        overrides = {} if overrides is None else overrides
        self._check(task, variant)
        name, _ = split_spec(policy)
        values: dict[str, Any] = {}
        for rule in self.rules:
            if rule.applies(task, variant, name):
                values |= rule.values
        block = values.get("block_length")
        published = {
            **values,
            "policy": merge_specs(values.get("policy", name), policy),
            "block_length": None if block == ONE_BLOCK else block,
        }
        changed = tuple(name for name in overrides if overrides[name] != published.get(name))
        return TaskSettings(**{**published, **overrides}, task=task, preset=self.name, overridden=changed)

    def _check(self, task: str, variant: str) -> None:
        for what, value, covered in (("task", task, self.tasks), ("model", variant, self.variants)):
            if value not in covered:
                raise InputError(
                    f"Preset {self.name} has no settings for the {what} {value}; it has {', '.join(covered)}. "
                    "Leave --preset out to run it with settings of your own."
                )


def _rule(facts: Mapping[str, Any]) -> Rule:
    conditions = {name: facts[name] for name in _CONDITIONS if name in facts}
    return Rule(**conditions, values={name: value for name, value in facts.items() if name not in _CONDITIONS})


def merge_specs(published: str, given: str) -> str:
    """``given`` with the fields of ``published`` that it does not set."""
    name, own = split_spec(given)
    _, fields = split_spec(published)
    text = ",".join(f"{field}={value}" for field, value in {**fields, **own}.items())
    return f"{name}:{text}" if text else name


def presets() -> dict[str, Preset]:
    """Name to preset, of those that come with freshkv."""
    folder = files("freshkv.evaluation") / "presets"
    names = sorted(path.name.removesuffix(".toml") for path in folder.iterdir() if path.name.endswith(".toml"))
    return {name: Preset.read(name, (folder / f"{name}.toml").read_text("utf-8")) for name in names}


def find_preset(name: str) -> Preset:
    """The preset of that name. Raises UnknownNameError."""
    known = presets()
    if name not in known:
        raise unknown_name("preset", name, known)
    return known[name]


def variant_of(model: str) -> str:
    """Which kind a model is, by the words in its name. Raises InputError where they do not say."""
    name = model.lower()
    families = [family for family in ("llada", "dream") if family in name]
    if len(families) != 1:
        raise InputError(
            f"The name '{model}' does not say whether it is a LLaDA or a Dream model; say --variant: one of "
            f"{', '.join(VARIANTS)}."
        )
    is_tuned = any(word in name for word in ("instruct", "chat", "1.5"))
    return f"{families[0]}-{'instruct' if is_tuned else 'base'}"
