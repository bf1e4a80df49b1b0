"""A policy that is asked early decides what it decides when it is asked in time, and nobody else notices."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve, field, frozen
from hypothesis import given
from hypothesis import strategies as st

import freshkv
from freshkv import CachePolicy, Decoder, Request, Selection, StepView
from freshkv.core.errors import NumericalError, PolicyError
from freshkv.core.run import Run
from freshkv.testing import NetworkShape
from freshkv.testing.problems import Problem
from freshkv.testing.strategies import problems
from tests.core.networks import BrokenByToken
from tests.core.requests import assert_as_alone, assert_same_trace
from tests.core.support import any_decoder, examples, policies_of
from tests.core.test_packing import until_error
from tests.core.test_properties_batch import Uneven, uneven_problem
from tests.core.test_properties_packing import uneven_service

EARLY = [name for name, policy in freshkv.policies().items() if policy.plans_ahead]


def test_all_that_wait_for_nothing_are_asked_early() -> None:
    assert set(EARLY) >= {"none", "prefix", "dual", "d2cache", "dllm", "block", "frontier"}


@pytest.mark.parametrize("name", EARLY)
def test_asked_early_it_decides_the_same(name: str) -> None:
    @examples(8)
    @given(problems(), policies_of(name), any_decoder(), st.booleans())
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder, reuse: bool) -> None:
        options = {"reuse_projections": reuse}
        early, late = (problem.run(policy, decoder, plan_ahead=ahead, **options) for ahead in (True, False))
        assert torch.equal(early.sequences, late.sequences)
        assert_same_trace(early.trace, late.trace)

    check()


@pytest.mark.parametrize("policy", ["dual", "d2cache:current_k=2", "dllm:kp=3,kr=2", "block"])
def test_requests_that_come_and_go_do_not_meet_a_plan_for_others(policy: str) -> None:
    evolve(uneven_service(slots=3), plan_ahead=True).assert_independent(policy, "threshold:threshold=0.1")


@frozen(eq=False)
class Noting(CachePolicy):
    """Notes what it is asked; raises where it is told to."""

    name = "noting"
    plans_ahead = True

    asked: list[tuple[int, int, bool]] = field(factory=list)  #: step, step of the block, whether anything is open
    fails_at: int | None = None  #: step
    fails_without_open: bool = False

    def select(self, view: StepView) -> Selection:
        is_open = bool((view.is_open & view.in_block).any())
        self.asked.append((view.step, view.step_in_block, is_open))
        if view.step == self.fails_at or (self.fails_without_open and not is_open):
            raise ValueError("told to")
        return Selection(predict=view.in_block)


class InTime(Noting):
    """The same, and is not asked early."""

    plans_ahead = False


def problem() -> Problem:
    """One sequence, two blocks of three positions."""
    return Problem(
        shape=NetworkShape(),
        input_ids=torch.tensor([[5, 6, 7]]),
        is_valid=torch.ones(1, 3, dtype=torch.bool),
        gen_length=6,
        block_length=3,
        seeds=(0,),
    )


def test_it_is_asked_early_once_more_for_each_block() -> None:
    early, late, in_time = Noting(), Noting(), InTime()
    for policy, ahead in ((early, True), (late, False), (in_time, True)):
        problem().run(policy, plan_ahead=ahead)
    steps = [(0, 0, True), (1, 1, True), (2, 2, True), (3, 0, True), (4, 1, True), (5, 2, True)]
    assert late.asked == in_time.asked == steps
    assert early.asked == [*steps[:3], (3, 3, False), *steps[3:], (6, 3, False)]


def test_on_the_host_nobody_is_asked_early() -> None:
    policy = Noting()
    problem().run(policy)
    assert len(policy.asked) == 6


def test_what_it_raises_of_a_state_that_does_not_come_about_is_no_error() -> None:
    policy = Noting(fails_without_open=True)
    run = problem().run(policy, plan_ahead=True)
    assert torch.equal(run.sequences, problem().run(Noting()).sequences)
    assert len(policy.asked) == 8


@frozen
class Writing(CachePolicy):
    """Writes to a tensor of its view, in its turn or only where nothing is open."""

    name = "writing"
    plans_ahead = True

    field_name: str
    late: bool
    fails: bool = False  #: once it has written

    def select(self, view: StepView) -> Selection:
        is_open = bool((view.is_open & view.in_block).any())
        if view.step == 1 if not self.late else not is_open:
            getattr(view, self.field_name)[:, -1] = 9
            if self.fails:
                raise ValueError("told to")
        return Selection(predict=view.in_block)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", ["tokens", "confidence", "committed_at"])
def test_what_it_writes_is_never_used(name: str, late: bool, fails: bool) -> None:
    """Also where it was asked for nothing: the state that it wrote to is the one that goes on."""
    with pytest.raises(PolicyError, match=rf"Writing\.select wrote to view\.{name}") as caught:
        problem().run(Writing(name, late, fails), plan_ahead=True)
    partial = caught.value.partial
    assert isinstance(partial, Run)
    assert len(partial.trace) == (3 if late else 1)


@frozen
class Widening(CachePolicy):
    """Remembers more in a step that does not come about, so that its sequences cannot be put together."""

    name = "widening"
    plans_ahead = True

    def select(self, view: StepView) -> Selection:
        wide = 1 if bool((view.is_open & view.in_block).any()) else 2
        return Selection(predict=view.in_block, remember={"wide": torch.zeros(*view.shape, wide)})


def test_what_its_answer_leads_to_in_a_state_that_does_not_come_about_is_no_error() -> None:
    early, late = (uneven_problem().run(Widening(), Uneven(), plan_ahead=ahead) for ahead in (True, False))
    assert_same_trace(early.trace, late.trace)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_what_it_raises_in_its_turn_comes_behind_the_step_before(step: int) -> None:
    with pytest.raises(PolicyError, match=rf"raised ValueError in step {step}: told to") as caught:
        problem().run(Noting(fails_at=step), plan_ahead=True)
    partial = caught.value.partial
    assert isinstance(partial, Run)
    assert len(partial.trace) == step


@pytest.mark.parametrize("policy", ["d2cache:current_k=2", "dllm:kp=3,kr=2"])
def test_logits_that_are_no_numbers_end_the_run_as_ever(policy: str) -> None:
    network = BrokenByToken(problem().network, 6)
    with pytest.raises(NumericalError, match="logits are NaN in sequence 0 at step 0"):
        problem().run(policy, network=network, plan_ahead=True)


def test_a_request_whose_logits_are_no_numbers_takes_no_plan_along() -> None:
    service = evolve(uneven_service(slots=3), plan_ahead=True)
    ill = Request((1, 31, 2), gen_length=6, block_length=3)
    service = evolve(service, requests=(*service.requests[:2], ill, *service.requests[2:]))
    network = BrokenByToken(service.network, 31)
    serving = service.serving("d2cache:current_k=2", "confidence", network=network, on_message=lambda _: None)
    finished, error = until_error(serving.serve(service.requests, 3))
    assert isinstance(error, NumericalError)
    assert len(finished) == 9
    for result in finished:
        assert_as_alone(result, service.alone(result.request, "d2cache:current_k=2", "confidence", network=network))
