"""Where a policy lies between a random choice of as many rows and the choice of an oracle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from attrs import evolve, frozen

from freshkv.compare.results import Results
from freshkv.compare.statistics import SIGNIFICANT, Interval, PairedDifference, compare_pairs, holm, mean_interval
from freshkv.compare.summary import BASELINE, EntrySummary, answers_of, equal_tokens, summarize
from freshkv.compare.wording import join, points

#: random and oracle must lie so far apart for a place between them to mean anything
LEAST_GAP = 0.02


@frozen(kw_only=True)
class Scale:
    """One measure of a policy and of its two references; more is better."""

    own: float
    random: float
    oracle: float

    @property
    def regret(self) -> float:
        """What the policy lacks to the oracle."""
        return self.oracle - self.own

    @property
    def place(self) -> float | None:
        """0: as good as random, 1: as good as the oracle; None where the oracle is not better than random."""
        gap = self.oracle - self.random
        return None if gap < LEAST_GAP else (self.own - self.random) / gap


@frozen(kw_only=True)
class Regret:
    """A policy beside an oracle and a random policy that compute as many rows, with one decoder on one task."""

    task: str
    decoder: str
    policy: str
    rows: Scale  #: share of the canvas computed in a pass; the three should be equal
    accuracy: Scale  #: share of problems solved
    tokens: Scale  #: share of response tokens that equal those of the uncached run
    first_divergence: Scale  #: share of the response before the first token that does not
    to_oracle: PairedDifference  #: of accuracy: the policy against the oracle, problem by problem
    corrected_p: float  #: of it, Holm's correction for the policies of this setting
    tokens_interval: Interval | None  #: of the regret in tokens, 95 %, over problems


def measure_regret(results: Results) -> tuple[Regret, ...]:
    """Every policy that ran beside both references, in the order of the experiment."""
    summaries = summarize(results)
    regrets = (_beside_references(results, own, summaries) for own in summaries if own.role == "policy")
    found = [regret for regret in regrets if regret is not None]
    return tuple(
        corrected
        for _, group in groupby(found, key=lambda regret: (regret.task, regret.decoder))
        for corrected in _correct(list(group))
    )


def _correct(regrets: Sequence[Regret]) -> Iterable[Regret]:
    p_values = holm([regret.to_oracle.p_value for regret in regrets])
    return (evolve(regret, corrected_p=p) for regret, p in zip(regrets, p_values, strict=True))


def _beside_references(results: Results, own: EntrySummary, summaries: Iterable[EntrySummary]) -> Regret | None:
    """None where one of the three has no results, or nothing to compare with."""
    there = {
        each.role: each
        for each in summaries
        if each.given == own.policy and each.role != "policy" and (each.task, each.decoder) == (own.task, own.decoder)
    }
    if there.keys() != {"random", "oracle"}:
        return None
    trio = (own, there["random"], there["oracle"])
    if any(each.token_agreement is None for each in trio):
        return None
    to_oracle, lacks = _problem_by_problem(results, own, there["oracle"].policy)
    return Regret(
        task=own.task,
        decoder=own.decoder,
        policy=own.policy,
        rows=_scale(trio, "rows_share"),
        accuracy=_scale(trio, "accuracy"),
        tokens=_scale(trio, "token_agreement"),
        first_divergence=_scale(trio, "first_divergence"),
        to_oracle=to_oracle,
        corrected_p=to_oracle.p_value,
        tokens_interval=mean_interval(lacks),
    )


def _scale(trio: Sequence[EntrySummary], name: str) -> Scale:
    own, random, oracle = (getattr(each, name) for each in trio)
    return Scale(own=own, random=random, oracle=oracle)


def _problem_by_problem(results: Results, own: EntrySummary, oracle: str) -> tuple[PairedDifference, list[float]]:
    """Accuracy against the oracle's, and the share of equal tokens that the policy lacks to it."""
    mine, best, truths = (
        answers_of(results, own.task, policy, own.decoder) for policy in (own.policy, oracle, BASELINE)
    )
    common = [case for case in mine if case in best and case in truths]
    return (
        compare_pairs([mine[case].correct for case in common], [best[case].correct for case in common]),
        [equal_tokens(best[case], truths[case]) - equal_tokens(mine[case], truths[case]) for case in common],
    )


def describe_regret(regrets: Sequence[Regret]) -> list[str]:
    """A few sentences on what is lost to the oracle, and how far random choice would do as well."""
    return [*_losses(regrets), *_likely_as_random(regrets), *_without_gap(regrets)]


def _name(regret: Regret) -> str:
    return f"{regret.policy} with {regret.decoder} on {regret.task}"


def _losses(regrets: Sequence[Regret]) -> Iterable[str]:
    losses = [each for each in regrets if each.to_oracle.difference < 0 and each.corrected_p < SIGNIFICANT]
    if losses:
        listed = [f"{_name(each)} ({points(each.to_oracle.difference)} points)" for each in losses]
        yield f"Solves fewer problems than an oracle with as many rows, and not by chance: {join(listed)}."
    elif regrets:
        yield "No policy solves fewer problems than an oracle with as many rows by more than chance."
    lacking = [each for each in regrets if each.tokens_interval is not None and each.tokens_interval[0] > 0]
    if lacking:
        listed = [f"{_name(each)} ({points(-each.tokens.regret)} points)" for each in lacking]
        yield f"Further from the uncached run's tokens than the oracle, each interval above 0: {join(listed)}."


def _likely_as_random(regrets: Sequence[Regret]) -> Iterable[str]:
    listed = [_name(each) for each in regrets if each.tokens.place is not None and each.tokens.place <= 0]
    if listed:
        yield f"Keeps no more of the uncached run's tokens than rows chosen at random: {join(listed)}."


def _without_gap(regrets: Sequence[Regret]) -> Iterable[str]:
    listed = [_name(each) for each in regrets if each.tokens.place is None]
    if listed and len(listed) == len(regrets):
        yield (
            "Rows chosen at random keep as many of the uncached run's tokens as those of the oracle, everywhere: these "
            "problems at these budgets do not tell one choice of rows from another."
        )
    elif listed:
        yield f"No place between random and oracle, which keep equally many tokens there: {join(listed)}."
