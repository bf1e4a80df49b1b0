"""The option of a policy that decides how many rows it computes, and the search for the value that computes so many."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from attrs import frozen

from freshkv.core.errors import InputError
from freshkv.core.policy import CachePolicy

FINE = 0.005  #: a share this near to the one sought ends a search
MOST_TRIALS = 12  #: of a search; a whole number of up to 512 takes no more
DIGITS = 3  #: of a share that is tried

ShareAt = Callable[[CachePolicy], float]


@frozen
class Knob:
    """``policy.budget_field`` and the values that it may take."""

    policy: CachePolicy
    field: str
    is_whole: bool
    low: float
    high: float

    def at(self, value: float) -> CachePolicy:
        """The policy with another value of the option."""
        return attrs.evolve(self.policy, **{self.field: int(value) if self.is_whole else value})  # type: ignore[misc]

    def rounded(self, value: float) -> float:
        """A value that can be tried: a whole number, or one of few digits, so that spec strings stay short."""
        return float(round(value)) if self.is_whole else round(value, DIGITS)


def knob_of(policy: CachePolicy, length: int) -> Knob | None:
    """The knob of ``policy`` for a response of ``length`` tokens; None if its class declares none.

    A whole number runs from the least that the policy takes to ``length``, a share from 0 to 1. Raises InputError if
    ``budget_field`` names no option of that kind.
    """
    name = type(policy).budget_field
    if name is None:
        return None
    value = getattr(policy, name, None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{type(policy).__name__}.budget_field is {name!r}, which holds {value!r}; expected an option of the "
            "policy that holds a whole number or a share."
        )
    is_whole = isinstance(value, int)
    inside = 1.0 if is_whole else 10.0**-DIGITS
    whole_range = Knob(policy, name, is_whole, 0.0, float(length) if is_whole else 1.0)
    low = 0.0 if _allows(whole_range, 0.0) else inside
    high = whole_range.high if _allows(whole_range, whole_range.high) else whole_range.high - inside
    return attrs.evolve(whole_range, low=low, high=max(low, high))


def _allows(knob: Knob, value: float) -> bool:
    try:
        knob.at(value)
    except (ValueError, TypeError):
        return False
    return True


def turn(knob: Knob, target: float, share_at: ShareAt) -> tuple[CachePolicy, float]:
    """The policy whose share of rows is nearest to ``target``, and that share.

    Shares rise or fall with the knob; they need not do so strictly. Interpolates and halves the range in turns.
    """
    tried: dict[float, float] = {}

    def excess(value: float) -> float:
        if value not in tried:
            tried[value] = share_at(knob.at(value)) - target
        return tried[value]

    low, high = knob.low, knob.high
    if excess(low) * excess(high) < 0:
        while len(tried) < MOST_TRIALS and min(map(abs, tried.values())) > FINE:
            middle = knob.rounded(_between(low, high, excess(low), excess(high), halve=len(tried) % 2 == 1))
            if middle in tried:
                middle = knob.rounded((low + high) / 2)
            if middle in tried:
                break
            low, high = (middle, high) if excess(low) * excess(middle) > 0 else (low, middle)
    best = min(tried, key=lambda value: abs(tried[value]))
    return knob.at(best), tried[best] + target


def _between(low: float, high: float, at_low: float, at_high: float, *, halve: bool) -> float:
    """The middle, or where a straight line between the ends crosses zero."""
    return (low + high) / 2 if halve else low - at_low * (high - low) / (at_high - at_low)
