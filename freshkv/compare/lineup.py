"""Who takes part where: policies whose budgets were matched, and references at the budget of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen

from freshkv.core.errors import InputError
from freshkv.core.registry import resolve_policy

Role = Literal["policy", "oracle", "random"]


@frozen(kw_only=True)
class Entrant:
    """One policy in a setting."""

    policy: str  #: the spec string that runs
    given: str  #: the spec string that was asked for; of a reference: that of the policy whose budget it has
    role: Role = "policy"  #: oracle and random are references, not competitors
    share: float | None = None  #: rows computed on the calibration problems, as a share of the canvas
    is_matched: bool | None = None  #: the share is that of the setting, within the tolerance; None: not to be matched


@frozen(kw_only=True)
class Setting:
    """One task with one decoder: a section of the table."""

    task: str
    decoder: str
    entrants: tuple[Entrant, ...]
    target: float | None = None  #: share of the canvas that all entrants are to compute

    @property
    def policies(self) -> tuple[str, ...]:
        """What runs, each once."""
        return tuple(dict.fromkeys(entrant.policy for entrant in self.entrants))


@frozen(kw_only=True)
class Lineup:
    """All settings, and the problems that budgets were measured on."""

    seed: int  #: that the calibration problems were drawn with; no seed of the experiment
    problems: int  #: calibration problems of each task
    settings: tuple[Setting, ...]

    def setting(self, task: str, decoder: str) -> Setting:
        """That of ``task`` and ``decoder``, given by name and spec string."""
        return next(each for each in self.settings if (each.task, each.decoder) == (task, decoder))


def full_settings(experiment: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Every policy in every setting, from the facts in a header."""
    entrants = tuple(Entrant(policy=policy, given=policy) for policy in experiment["policies"])
    return tuple(
        Setting(task=task, decoder=decoder, entrants=entrants)
        for task in experiment["tasks"]
        for decoder in experiment["decoders"]
    )


def read_budget(value: Any) -> str | float | None:
    """What policies are matched to: the spec string of a policy in its normal form, or a share of the canvas.

    Raises SpecError or UnknownNameError for a policy that is none, InputError for a share that is none.
    """
    if value is None:
        return None
    try:
        share = float(value)
    except (TypeError, ValueError):
        return resolve_policy(value).spec
    if isinstance(value, bool) or not 0 < share <= 1:
        raise InputError(f"match_budget is {value!r}; expected a policy, or a share of the canvas above 0 and up to 1.")
    return share
