"""The Pareto front: entries that no other one beats in accuracy and cost together, and those that may be among them.

An entry beats another that it equals or betters in both, and betters in one; entries with equal numbers are on the
front together or not at all. An entry that is beaten, but not clearly, may be on the front: so few problems cannot
tell. It is clearly behind if another one, at no higher cost, has an accuracy whose whole interval lies above its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from freshkv.compare.results import Results
from freshkv.compare.statistics import Interval
from freshkv.compare.summary import EntrySummary, summarize

Standing = Literal["front", "perhaps", "behind"]
Cost = Literal["rows", "rows a step", "seconds"]

#: facts of a header that tell settings of one model apart
SETTINGS = (
    "gen_lengths", "block_length", "batch_size", "temperature", "top_k", "top_p", "stop_at_eos", "raw_prompts", "dtype",
    "device", "problems", "seeds", "repeats", "match_budget",
)  # fmt: skip


@frozen(kw_only=True)
class Point:
    """What an entry reached, and what it cost. None for an interval: the value is exact."""

    accuracy: float
    cost: float  #: less is better
    accuracy_interval: Interval | None = None
    cost_interval: Interval | None = None

    def beats(self, other: Point) -> bool:
        """At least as good in both, and better in one."""
        at_least = self.accuracy >= other.accuracy and self.cost <= other.cost
        return at_least and (self.accuracy, self.cost) != (other.accuracy, other.cost)

    def clearly_beats(self, other: Point) -> bool:
        """More accurate by more than both intervals, and surely no more costly."""
        mine, theirs = self.accuracy_interval, other.accuracy_interval
        low = self.accuracy if mine is None else mine[0]
        high = other.accuracy if theirs is None else theirs[1]
        own_cost = self.cost if self.cost_interval is None else self.cost_interval[1]
        other_cost = other.cost if other.cost_interval is None else other.cost_interval[0]
        return low > high and own_cost <= other_cost


def find_standings(points: Sequence[Point]) -> tuple[Standing, ...]:
    """For each point whether it is on the front of all, perhaps on it, or behind it."""
    return tuple(_standing(point, points) for point in points)


def _standing(point: Point, points: Sequence[Point]) -> Standing:
    if not any(other.beats(point) for other in points):
        return "front"
    return "behind" if any(other.clearly_beats(point) for other in points) else "perhaps"


def rows_of_response(summary: EntrySummary) -> float | None:
    """Rows computed for a whole response, in forward passes over the whole canvas.

    It does not depend on the machine, and counts what a decoder saves in steps as well as what a policy saves in each.
    """
    if summary.forwards is None or summary.rows_share is None:
        return None
    return summary.forwards * summary.rows_share


def seconds_per_token(summary: EntrySummary) -> float | None:
    """The inverse of tokens per second."""
    return None if not summary.tokens_per_second else 1 / summary.tokens_per_second


def _seconds_interval(summary: EntrySummary) -> Interval | None:
    """The interval of the measured speed-up, as one of seconds."""
    seconds, interval, median = seconds_per_token(summary), summary.speedup_interval, summary.speedup
    if seconds is None or interval is None or not median or interval[0] <= 0:
        return None
    return seconds * median / interval[1], seconds * median / interval[0]


COSTS: Mapping[Cost, Callable[[EntrySummary], float | None]] = {
    "rows": rows_of_response,
    "rows a step": lambda summary: summary.rows_share,
    "seconds": seconds_per_token,
}


def point_of(summary: EntrySummary, cost: Cost) -> Point | None:
    """An entry as a point; None for references, which do not compete, and where nothing was measured."""
    value = COSTS[cost](summary)
    if summary.role != "policy" or summary.accuracy is None or value is None:
        return None
    interval = _seconds_interval(summary) if cost == "seconds" else None
    return Point(
        accuracy=summary.accuracy, cost=value, accuracy_interval=summary.accuracy_interval, cost_interval=interval
    )


@frozen(kw_only=True)
class Candidate:
    """An entry among all that compete for one front: those of one model on one task, in all settings."""

    model: str
    setting: str  #: what tells its results file from the others, such as ``block_length=8``; empty for a single one
    summary: EntrySummary
    standings: Mapping[Cost, Standing]  #: by each cost that was measured

    @property
    def name(self) -> str:
        """Policy, decoder and setting."""
        parts = [f"{self.summary.policy} with {self.summary.decoder}"]
        return ", ".join([*parts, self.setting] if self.setting else parts)


def find_candidates(results: Sequence[Results]) -> tuple[Candidate, ...]:
    """Every entry of all results with its standings, models and tasks in the order in which they come."""
    settings = describe_settings(results)
    groups: dict[tuple[str, str], list[tuple[str, EntrySummary]]] = {}
    for each, setting in zip(results, settings, strict=True):
        for summary in summarize(each):
            groups.setdefault((_model_of(each), summary.task), []).append((setting, summary))
    return tuple(
        Candidate(model=model, setting=setting, summary=summary, standings=standings)
        for (model, _), entries in groups.items()
        for (setting, summary), standings in zip(entries, _all_standings([e for _, e in entries]), strict=True)
    )


def _model_of(results: Results) -> str:
    return Path(results.header.model).name


def _all_standings(summaries: Sequence[EntrySummary]) -> list[dict[Cost, Standing]]:
    """For each summary its standing by each cost."""
    found: list[dict[Cost, Standing]] = [{} for _ in summaries]
    for cost in COSTS:
        points = {place: point for place, s in enumerate(summaries) if (point := point_of(s, cost)) is not None}
        for place, standing in zip(points, find_standings(list(points.values())), strict=True):
            found[place][cost] = standing
    return found


def describe_settings(results: Sequence[Results]) -> list[str]:
    """For each of several results what tells it from the others of its model: ``block_length=8, temperature=0.5``."""
    described = []
    for each in results:
        family = [other.header.experiment for other in results if _model_of(other) == _model_of(each)]
        mine = each.header.experiment
        differing = [name for name in SETTINGS if any(other.get(name) != mine.get(name) for other in family)]
        described.append(", ".join(f"{name}={_shown(mine.get(name))}" for name in differing))
    return described


def _shown(value: Any) -> str:
    """A fact in few words; lengths that are the same for all tasks are one number."""
    if isinstance(value, Mapping):
        lengths = list(dict.fromkeys(value.values()))
        return "/".join(map(str, lengths))
    if isinstance(value, list):
        return "/".join(map(str, value))
    return "none" if value is None else str(value)
