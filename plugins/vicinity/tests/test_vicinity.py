"""``vicinity``: rows of every step."""

from __future__ import annotations

import pytest
import torch

from freshkv.testing import PolicyContract, columns, example_problem
from freshkv.testing.networks import FAMILIES, Family
from freshkv_vicinity import VicinityRefresh


@pytest.mark.parametrize("family", FAMILIES)
def test_the_block_and_its_neighbours_are_recomputed(family: Family) -> None:
    trace = example_problem(family).alone(0).run(VicinityRefresh(before=2, after=1, warmup=2)).trace
    for number, step in enumerate(trace):
        start = 6 + number // 4 * 4
        full = number < 2 or number % 4 == 0
        assert columns(step.refreshed[0]) == list(range(18) if full else range(start - 2, min(start + 5, 18)))


def test_a_wide_window_ends_with_the_canvas() -> None:
    trace = example_problem().run(VicinityRefresh(warmup=0)).trace
    padding = torch.arange(18) < torch.tensor([[0], [2], [4]])
    assert all(bool((step.refreshed | padding).all()) for step in trace)


def test_without_a_window_dream_recomputes_the_row_before_the_block() -> None:
    trace = example_problem("dream").alone(0).run(VicinityRefresh(before=0, after=0, warmup=0)).trace
    assert columns(trace[1].refreshed[0]) == [5, 6, 7, 8, 9]


def test_without_a_window_and_warm_up_it_is_the_dual_cache() -> None:
    case, decoder = example_problem(), "threshold:threshold=0.2"
    run, dual = case.run(VicinityRefresh(before=0, after=0, warmup=0), decoder), case.run("dual", decoder)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in dual.trace]


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = VicinityRefresh
    exact = VicinityRefresh(warmup=99)


class TestContractOfAWideWindow(PolicyContract):
    """The other way to be exact."""

    policy = VicinityRefresh(before=99, after=99)
    exact = VicinityRefresh(before=99, after=99)
    examples = 10
