"""Budgets: how many rows policies compute, measured and matched on problems that are not compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attrs import evolve, field, frozen

from freshkv.compare.cases import Case, draw_cases
from freshkv.compare.experiment import BASELINE, Entry, Experiment
from freshkv.compare.knob import DIGITS, FINE, knob_of, turn
from freshkv.compare.lineup import Entrant, Lineup, Role, Setting
from freshkv.compare.measure import Subject, decode, to_records
from freshkv.compare.records import Header, rows_share
from freshkv.compare.results import read_results
from freshkv.compare.schedule import Work
from freshkv.compare.store import check_same
from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import resolve_policy
from freshkv.models.tasks import Task

CALIBRATION_SEED = 1_000_003  #: far from the seeds that people choose
CALIBRATION_PROBLEMS = 4  #: of each task; shares of rows differ little between problems
TOLERANCE = 0.02  #: of the canvas; shares that differ by no more are called matched
MOST_CORRECTIONS = 4  #: of the budget of references
REFERENCES: tuple[Role, ...] = ("oracle", "random")

Say = Callable[[str], None]


def arrange(experiment: Experiment, header: Header, path: Path, calibrate: Callable[[], Lineup]) -> Lineup | None:
    """The line-up of an experiment that matches budgets or shows regret; None for any other.

    A file that was begun keeps its line-up; else ``calibrate`` finds one. Raises ResultsError if ``path`` holds
    something else, before any work.
    """
    if experiment.match_budget is None and not experiment.regret:
        return None
    if path.is_file() and b"\n" in path.read_bytes():
        begun = read_results(path).header
        check_same(path, begun, header)
        return begun.lineup
    return calibrate()


def calibrate(subject: Subject, experiment: Experiment, cases: Sequence[Case], say: Say) -> Lineup:
    """Measure and match budgets on problems of a seed of their own, without the problems of ``cases``."""
    return make_lineup(
        experiment,
        [
            calibrate_setting(subject, experiment, task, decoder, cases, say)
            for task in experiment.tasks
            for decoder in experiment.decoders
        ],
    )


def make_lineup(experiment: Experiment, settings: Iterable[Setting]) -> Lineup:
    """The line-up of calibrated settings."""
    return Lineup(seed=_calibration_seed(experiment), problems=CALIBRATION_PROBLEMS, settings=tuple(settings))


def calibrate_setting(
    subject: Subject, experiment: Experiment, task: Task, decoder: Decoder, cases: Sequence[Case], say: Say
) -> Setting:
    """The part of ``calibrate`` for one task with one decoder; it needs nothing of the others."""
    problems = _other_problems(subject, experiment, task, _calibration_seed(experiment), cases)
    return _arrange_setting(experiment, task, Meter(subject, experiment, decoder, problems, say))


def _calibration_seed(experiment: Experiment) -> int:
    return next(seed for seed in range(CALIBRATION_SEED, 2 * CALIBRATION_SEED) if seed not in experiment.seeds)


def _other_problems(
    subject: Subject, experiment: Experiment, task: Task, seed: int, cases: Sequence[Case]
) -> tuple[Case, ...]:
    """Calibration problems: none of them is compared."""
    compared = {case.prompt for case in cases}
    drawn = draw_cases(task, seed, CALIBRATION_PROBLEMS + len(compared), subject.tokenizer, raw=experiment.raw_prompts)
    return tuple(case for case in drawn if case.prompt not in compared)[:CALIBRATION_PROBLEMS]


@frozen(eq=False)
class Meter:
    """Measures the share of rows that a policy computes with one decoder on the calibration problems of one task."""

    subject: Subject
    experiment: Experiment
    decoder: Decoder
    cases: tuple[Case, ...]
    say: Say
    _known: dict[str, float] = field(factory=dict, init=False)

    def share(self, policy: CachePolicy) -> float:
        """Rows computed in a pass, as a share of the canvas. Raises what the policy raises."""
        if policy.spec not in self._known:
            self.say(f"measuring the budget of {policy.spec} with {self.decoder.spec} on {self.cases[0].task.name}")
            runs = [(work, decode(self.subject, self.experiment, work)) for work in self._works(policy)]
            self._known[policy.spec] = rows_share(
                [record for work, run in runs for record in to_records(work, run, self.subject.tokenizer)]
            )
        return self._known[policy.spec]

    def _works(self, policy: CachePolicy) -> list[Work]:
        """Prompts of one length are decoded together: without padding a sequence's rows do not depend on its batch."""
        lengths: dict[int, list[Case]] = {}
        for case in self.cases:
            lengths.setdefault(len(case.prompt), []).append(case)
        return [Work(Entry(policy, self.decoder), tuple(cases)) for cases in lengths.values()]


def _arrange_setting(experiment: Experiment, task: Task, meter: Meter) -> Setting:
    target = _target(experiment, meter)
    length = experiment.gen_length_of(task)
    entrants = [_match(policy, target, length, meter) for policy in _policies(experiment)]
    if experiment.regret:
        for entrant in tuple(entrants):
            entrants += _references(entrant, meter)
    return Setting(task=task.name, decoder=meter.decoder.spec, entrants=tuple(entrants), target=target)


def _policies(experiment: Experiment) -> tuple[CachePolicy, ...]:
    """Those of the experiment, and the one that they are matched to where it is not among them."""
    budget = experiment.match_budget
    if not isinstance(budget, str) or budget in {policy.spec for policy in experiment.policies}:
        return experiment.policies
    return (*experiment.policies, resolve_policy(budget))


def _target(experiment: Experiment, meter: Meter) -> float | None:
    budget = experiment.match_budget
    if not isinstance(budget, str):
        return budget
    try:
        return meter.share(next(policy for policy in _policies(experiment) if policy.spec == budget))
    except Exception as error:
        raise InputError(
            f"The budget of {budget} with {meter.decoder.spec} on {meter.cases[0].task.name} cannot be measured "
            f"({type(error).__name__}: {error}); match the others to a share such as 0.25 instead."
        ) from error


def _match(policy: CachePolicy, target: float | None, length: int, meter: Meter) -> Entrant:
    """The policy as it takes part. One that fails here takes part as it is, and its failure is recorded then."""
    entrant = Entrant(policy=policy.spec, given=policy.spec)
    if policy.spec == BASELINE:
        return entrant
    try:
        knob = None if target is None or policy.spec == meter.experiment.match_budget else knob_of(policy, length)
        chosen, share = (policy, meter.share(policy)) if knob is None else turn(knob, target or 0.0, meter.share)
    except InputError:
        raise
    except Exception:
        return entrant
    is_matched = None if target is None else abs(share - target) <= TOLERANCE
    return evolve(entrant, policy=chosen.spec, share=round(share, 4), is_matched=is_matched)


def _references(entrant: Entrant, meter: Meter) -> list[Entrant]:
    """An oracle and a random policy that compute as many rows as ``entrant``.

    Both refresh as many rows at the same budget, so that it is enough to measure the random one, which is quicker.
    """
    if entrant.share is None:
        return []
    budget, share = _settle(entrant.share, meter)
    is_matched = abs(share - entrant.share) <= TOLERANCE
    return [
        Entrant(
            policy=resolve_policy(f"{role}:budget={budget}").spec,
            given=entrant.policy,
            role=role,
            share=round(share, DIGITS + 1),
            is_matched=is_matched,
        )
        for role in REFERENCES
    ]


def _settle(target: float, meter: Meter) -> tuple[float, float]:
    """The budget with which a random policy computes the share ``target``, and the share that it does compute.

    A budget is nearly that share, but for the first step, which refreshes everything.
    """
    tried: dict[float, float] = {}
    budget = target
    for _ in range(MOST_CORRECTIONS):
        budget = min(1.0, max(10.0**-DIGITS, round(budget, DIGITS)))
        if budget in tried:
            break
        tried[budget] = meter.share(resolve_policy(f"random:budget={budget}"))
        if abs(tried[budget] - target) <= FINE:
            break
        budget += target - tried[budget]
    best = min(tried, key=lambda each: abs(tried[each] - target))
    return best, tried[best]
