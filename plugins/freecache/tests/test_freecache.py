"""``freecache``: rows of every step."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from freshkv.testing import PolicyContract, columns, example_problem
from freshkv.testing.networks import FAMILIES, Family
from freshkv_freecache import FreeCache


def test_the_prompt_and_clean_blocks_are_frozen() -> None:
    trace = example_problem().alone(0).run(FreeCache()).trace
    first_rows = [0, 6, 6, 6, 6, 10, 10, 10, 10, 14, 14, 14]  # a clean block is recomputed once more, then never
    assert [columns(step.refreshed[0]) for step in trace] == [list(range(first, 18)) for first in first_rows]


def test_dream_recomputes_the_row_before_the_block_besides() -> None:
    trace = example_problem("dream").alone(0).run(FreeCache()).trace
    assert columns(trace[1].refreshed[0])[:2] == [5, 6]
    assert columns(trace[4].refreshed[0])[:2] == [6, 7]
    assert columns(trace[5].refreshed[0])[:2] == [9, 10]


@pytest.mark.parametrize("decoder", ["confidence", "threshold:threshold=0.2"])
def test_every_token_is_recomputed_after_it_was_decided(decoder: str) -> None:
    """But for those of the last step: no key or value of a mask is frozen."""
    case = example_problem()
    run = case.run(FreeCache(), decoder)
    for sequence in range(case.batch):
        own = [step for step in run.trace if step.active[sequence]]
        for before, after in pairwise(own):
            assert bool((after.refreshed | ~before.committed)[sequence].all())


def test_full_refreshes_come_at_the_interval_that_is_asked_for() -> None:
    trace = example_problem().alone(0).run(FreeCache(refresh_every=3)).trace
    assert [number for number, step in enumerate(trace) if bool(step.refreshed.all())] == [0, 3, 6, 9]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_of_one_step_is_exact(family: Family) -> None:
    case, decoder = example_problem(family, block_length=12), "confidence:tokens_per_step=12"
    run, truth = case.run(FreeCache(), decoder), case.run("none", decoder)
    assert len(run.trace) == 1
    assert torch.equal(run.sequences, truth.sequences)


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = FreeCache
    exact = FreeCache(refresh_every=1)
