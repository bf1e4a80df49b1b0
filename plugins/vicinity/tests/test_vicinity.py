"""``vicinity``: rows of every step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from freshkv.testing import NetworkShape, PolicyContract, Problem
from freshkv.testing.networks import FAMILIES, Family
from freshkv_vicinity import VicinityRefresh

POLICIES = (
    VicinityRefresh(),
    VicinityRefresh(before=2, after=1, warmup=2),
    VicinityRefresh(before=0, after=0, warmup=0),
)

ONE_BY_ONE = "confidence"
UNEVEN = "threshold:threshold=0.2"


def problem(family: Family = "llada", block_length: int = 4) -> Problem:
    """Three prompts of which two are padded, twelve positions to decode."""
    return Problem(
        shape=NetworkShape(family=family, layers=4),
        input_ids=torch.randint(0, 32, (3, 6), generator=torch.Generator().manual_seed(7)),
        is_valid=torch.arange(6) >= torch.tensor([[0], [2], [4]]),
        gen_length=12,
        block_length=block_length,
        seeds=(1, 2, 3),
    )


def positions(mask: Tensor) -> list[int]:
    """Where a mask, bool [seq], is True."""
    where: list[int] = mask.nonzero()[:, 0].tolist()
    return where


@pytest.mark.parametrize("family", FAMILIES)
def test_the_block_and_its_neighbours_are_recomputed(family: Family) -> None:
    trace = problem(family).alone(0).run(VicinityRefresh(before=2, after=1, warmup=2)).trace
    for number, step in enumerate(trace):
        start = 6 + number // 4 * 4
        full = number < 2 or number % 4 == 0
        assert positions(step.refreshed[0]) == list(range(18) if full else range(start - 2, min(start + 5, 18)))


def test_a_wide_window_ends_with_the_canvas() -> None:
    trace = problem().run(VicinityRefresh(warmup=0)).trace
    padding = torch.arange(18) < torch.tensor([[0], [2], [4]])
    assert all(bool((step.refreshed | padding).all()) for step in trace)


def test_without_a_window_dream_recomputes_the_row_before_the_block() -> None:
    trace = problem("dream").alone(0).run(VicinityRefresh(before=0, after=0, warmup=0)).trace
    assert positions(trace[1].refreshed[0]) == [5, 6, 7, 8, 9]


def test_without_a_window_and_warm_up_it_is_the_dual_cache() -> None:
    run = problem().run(VicinityRefresh(before=0, after=0, warmup=0), UNEVEN)
    dual = problem().run("dual", UNEVEN)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in dual.trace]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_window_as_wide_as_the_canvas_is_exact(family: Family) -> None:
    run, truth = problem(family).run(VicinityRefresh(before=99, after=99)), problem(family).run("none")
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in truth.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoder", [ONE_BY_ONE, UNEVEN])
def test_a_warm_up_as_long_as_the_run_is_exact(decoder: str, family: Family) -> None:
    run, truth = problem(family).run(VicinityRefresh(0, 0, warmup=99), decoder), problem(family).run("none", decoder)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in truth.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.spec)
def test_a_sequence_does_not_depend_on_its_batch(policy: VicinityRefresh, family: Family) -> None:
    together = problem(family)
    run = together.run(policy, UNEVEN)
    for sequence in range(together.batch):
        alone, start = together.alone(sequence).run(policy, UNEVEN), together.padding(sequence)
        own = [step for step in run.trace if step.active[sequence]]
        for here, there in zip(own, alone.trace, strict=True):
            assert torch.equal(here.tokens[sequence, start:], there.tokens[0])
            for layer in range(together.shape.layers):
                assert torch.equal(here.layer(layer)[sequence, start:], there.layer(layer)[0])


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = VicinityRefresh
    exact = VicinityRefresh(warmup=99)
