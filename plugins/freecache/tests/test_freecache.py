"""``freecache``: rows of every step."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from freshkv.testing import NetworkShape, PolicyContract, Problem
from freshkv.testing.networks import FAMILIES, Family
from freshkv_freecache import FreeCache

POLICIES = (FreeCache(), FreeCache(refresh_every=3))

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


def test_the_prompt_and_clean_blocks_are_frozen() -> None:
    trace = problem().alone(0).run(FreeCache()).trace
    first_rows = [0, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14]  # a clean block is recomputed once more, then never
    assert [positions(step.refreshed[0]) for step in trace] == [list(range(first, 18)) for first in first_rows]


def test_dream_recomputes_the_row_before_the_block_besides() -> None:
    trace = problem("dream").alone(0).run(FreeCache()).trace
    assert positions(trace[1].refreshed[0])[:2] == [5, 6]
    assert positions(trace[4].refreshed[0])[:2] == [6, 7]
    assert positions(trace[5].refreshed[0])[:2] == [9, 10]


@pytest.mark.parametrize("decoder", [ONE_BY_ONE, UNEVEN])
def test_every_token_is_recomputed_after_it_was_decided(decoder: str) -> None:
    """But for those of the last step: no key or value of a mask is frozen."""
    case = problem()
    run = case.run(FreeCache(), decoder)
    for sequence in range(case.batch):
        own = [step for step in run.trace if step.active[sequence]]
        for before, after in pairwise(own):
            assert bool((after.refreshed | ~before.committed)[sequence].all())


def test_full_refreshes_come_at_the_interval_that_is_asked_for() -> None:
    trace = problem().alone(0).run(FreeCache(refresh_every=3)).trace
    assert [number for number, step in enumerate(trace) if bool(step.refreshed.all())] == [0, 3, 6, 9]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_one_step_is_exact(family: Family) -> None:
    case, decoder = problem(family, block_length=12), "confidence:tokens_per_step=12"
    run, truth = case.run(FreeCache(), decoder), case.run("none", decoder)
    assert len(run.trace) == 1
    assert torch.equal(run.sequences, truth.sequences)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoder", [ONE_BY_ONE, UNEVEN])
def test_refreshing_in_every_step_is_exact(decoder: str, family: Family) -> None:
    run, truth = problem(family).run(FreeCache(refresh_every=1), decoder), problem(family).run("none", decoder)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in truth.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.spec)
def test_a_sequence_does_not_depend_on_its_batch(policy: FreeCache, family: Family) -> None:
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

    policy = FreeCache
    exact = FreeCache(refresh_every=1)
