"""oracle and random: how many rows, which of them, and that the oracle's are the best by its measure."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from freshkv import CachePolicy, Selection, StepView
from freshkv.core.ranking import best
from freshkv.core.registry import resolve_policy
from freshkv.policies.oracle import OraclePolicy
from freshkv.policies.random import RandomPolicy
from freshkv.testing import NetworkShape, Problem, wrapped
from freshkv.testing.strategies import problems
from tests.core.support import any_final_decoder, examples, own_steps

BUDGETS = (0.01, 0.05, 0.1, 0.25, 0.3, 0.5, 0.77, 1.0)
budgeted = st.builds(OraclePolicy, st.sampled_from(BUDGETS)) | st.builds(
    RandomPolicy, st.sampled_from(BUDGETS), st.integers(0, 3)
)


def asked(problem: Problem, policy: CachePolicy, decoder: object = "confidence") -> list[tuple[StepView, Tensor]]:
    """Every view of a run, and the rows that the policy answered with."""
    answers: list[tuple[StepView, Tensor]] = []

    def watch(original):  # type: ignore[no-untyped-def]
        def select(view: StepView) -> Selection:
            selection = original(view)
            if view.step > 0:
                answers.append((view, selection.refresh))
            return selection

        return select

    problem.run(wrapped(policy, select=watch), decoder)  # type: ignore[arg-type]
    return answers


def left(drift: Tensor, rows: Tensor) -> Tensor:
    """Drift of the rows that are not refreshed, summed: float64 [batch]."""
    return drift.double().masked_fill(rows, 0).sum(dim=1)


@examples(30)
@given(problem=problems(), policy=budgeted, decoder=any_final_decoder())
def test_the_budget_holds_in_the_sum_over_steps(problem: Problem, policy: OraclePolicy, decoder: object) -> None:
    run = problem.run(policy, decoder)  # type: ignore[arg-type]
    for sequence in range(problem.batch):
        valid = problem.prompt_length + problem.gen_length - problem.padding(sequence)
        share, spent = policy.budget * valid, 0
        for number, step in enumerate(own_steps(run, sequence)[1:], start=1):
            rows = int(step.refreshed[sequence].sum())
            spent += rows
            assert not bool(step.refreshed[sequence, : problem.padding(sequence)].any()), "padding is never refreshed"
            if share >= 1:
                assert spent == int(share * number + 1e-9)
            else:
                assert rows == 1, "one row at least, without which nothing can be decided"


@examples(30)
@given(problem=problems(), policy=budgeted, decoder=any_final_decoder())
def test_half_of_the_rows_predict_as_long_as_there_are_so_many(
    problem: Problem, policy: OraclePolicy, decoder: object
) -> None:
    for view, rows in asked(problem, policy, decoder):
        predicting = view.rows_for(view.is_open & view.in_block)
        count, among = rows.sum(dim=1), (rows & predicting).sum(dim=1)
        assert bool((among >= torch.minimum((count + 1) // 2, predicting.sum(dim=1))).all())


@examples(30)
@given(problem=problems(), budget=st.sampled_from(BUDGETS), decoder=any_final_decoder())
def test_of_all_sets_with_the_oracles_predictions_its_own_leaves_the_least_drift(
    problem: Problem, budget: float, decoder: object
) -> None:
    """Every set of as many valid rows that holds the likeliest predicting ones, tried one by one where they are few."""
    for view, rows in asked(problem, OraclePolicy(budget), decoder):
        drift = view.signals["drift"].mean(dim=1)
        confidence = view.to_rows(view.confidence, -torch.inf).nan_to_num(neginf=-1e9)
        half = (rows.sum(dim=1, keepdim=True) + 1) // 2
        likeliest = best(confidence, view.rows_for(view.is_open & view.in_block), half)
        assert bool((rows | ~likeliest).all())
        for place in range(view.shape[0]):
            free = (view.is_valid & ~likeliest)[place].nonzero()[:, 0].tolist()
            count = int(rows[place].sum() - likeliest[place].sum())
            mine = float(left(drift[place : place + 1], rows[place : place + 1]))
            for others in itertools.islice(itertools.combinations(free, count), 200):
                candidate = likeliest[place : place + 1].clone()
                candidate[0, list(others)] = True
                assert mine <= float(left(drift[place : place + 1], candidate)) + 1e-9


@examples(20)
@given(problem=problems(), budget=st.sampled_from(BUDGETS), decoder=any_final_decoder())
def test_asked_the_same_the_oracle_leaves_no_more_drift_than_rows_drawn_at_random(
    problem: Problem, budget: float, decoder: object
) -> None:
    generator = torch.Generator().manual_seed(0)
    for view, rows in asked(problem, OraclePolicy(budget), decoder):
        drift = view.signals["drift"].mean(dim=1)
        predicting = rows & view.rows_for(view.is_open & view.in_block)
        others = rows.sum(dim=1, keepdim=True) - predicting.sum(dim=1, keepdim=True)
        drawn = best(torch.rand(view.shape, generator=generator), view.is_valid & ~predicting, others)
        assert bool((left(drift, rows) <= left(drift, predicting | drawn) + 1e-9).all())


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_the_draw_differs_by_seed_step_and_prompt_and_by_nothing_else(family: str) -> None:
    def rows(seed: int, prompt: list[int], batch: int = 1) -> list[list[int]]:
        problem = Problem(
            shape=NetworkShape(family=family),  # type: ignore[arg-type]
            input_ids=torch.tensor([prompt] * batch),
            is_valid=torch.ones(batch, len(prompt), dtype=torch.bool),
            gen_length=12,
            block_length=12,
            seeds=(0,) * batch,
        )
        steps = problem.run(RandomPolicy(0.3, seed)).trace[1:]
        return [step.refreshed[-1].nonzero()[:, 0].tolist() for step in steps]

    first = rows(0, [1, 2, 3, 4])
    assert first == rows(0, [1, 2, 3, 4], batch=3)
    assert first != rows(1, [1, 2, 3, 4])
    assert first != rows(0, [1, 2, 3, 5])


def test_every_step_draws_anew() -> None:
    problem = Problem(
        shape=NetworkShape(),
        input_ids=torch.tensor([[1, 2, 3, 4]]),
        is_valid=torch.ones(1, 4, dtype=torch.bool),
        gen_length=6,
        block_length=6,
        seeds=(0,),
    )
    policy = RandomPolicy(0.3)
    draws = [torch.stack(policy.rank(view)) for view, _ in asked(problem, policy)]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws) == 5


def test_rows_are_drawn_evenly() -> None:
    """Of rows that predict nothing, over many prompts; each count is binomial, five deviations are allowed."""
    runs, counts = 400, torch.zeros(4)
    problem = Problem(
        shape=NetworkShape(),
        input_ids=torch.randint(0, 32, (runs, 4), generator=torch.Generator().manual_seed(1)),
        is_valid=torch.ones(runs, 4, dtype=torch.bool),
        gen_length=4,
        block_length=4,
        seeds=(0,) * runs,
    )
    for step in problem.run("random:budget=0.5").trace[1:2]:
        counts += step.refreshed[:, :4].float().sum(dim=0)
    # four rows: two predict, and two of the other six are drawn
    expected, deviation = runs / 3, (runs * (1 / 3) * (2 / 3)) ** 0.5
    assert bool(((counts - expected).abs() < 5 * deviation).all()), counts


@pytest.mark.parametrize("spec", ["oracle:budget=0", "oracle:budget=1.1", "random:budget=-1", "random:seed=0.5"])
def test_what_is_no_share_or_seed_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"budget|seed"):
        resolve_policy(spec)


def test_the_budget_is_what_comparisons_at_equal_rows_turn() -> None:
    assert (OraclePolicy.budget_field, RandomPolicy.budget_field) == ("budget", "budget")
