"""``elastic``: rows by layer in runs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from freshkv import LayerView, StepView
from freshkv.testing import NetworkShape, PolicyContract, Problem, wrapped
from freshkv.testing.networks import FAMILIES, Family
from freshkv_elastic_cache import ElasticCache

POLICIES = (ElasticCache(), ElasticCache(window=3, gamma=0.95), ElasticCache(window=2, gamma=0.0))

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


def heard(policy: ElasticCache, case: Problem, decoder: str = ONE_BY_ONE) -> list[tuple[StepView, LayerView, Tensor]]:
    """Every question that the core asked in a run, with the answer."""
    asked: list[tuple[StepView, LayerView, Tensor]] = []

    def recording(original: Callable[[StepView, LayerView], Tensor]) -> Callable[[StepView, LayerView], Tensor]:
        def select_layer(view: StepView, layer: LayerView) -> Tensor:
            rows = original(view, layer)
            asked.append((view, layer, rows))
            return rows

        return select_layer

    case.run(wrapped(policy, select_layer=recording), decoder)
    assert asked
    return asked


def test_without_drift_only_the_first_masks_and_the_last_token_are_recomputed() -> None:
    case = problem().alone(0)
    run = case.run(ElasticCache(window=3, gamma=0.0))
    tokens = run.trace[0].tokens
    for before, step in pairwise(run.trace):
        window = positions(tokens[0] == case.shape.mask_token_id)[:3]
        just_decided = positions(before.committed[0])
        for layer in range(4):
            assert positions(step.layer(layer)[0]) == sorted({*window, *just_decided})
        tokens = step.tokens


def test_dream_recomputes_the_rows_that_predict_the_window() -> None:
    run = problem("dream").alone(0).run(ElasticCache(window=3, gamma=0.0))
    just_decided = positions(run.trace[0].committed[0])
    window = [position for position in range(6, 18) if position not in just_decided][:3]
    expected = {position - 1 for position in window} | set(just_decided)
    assert positions(run.trace[1].layer(0)[0]) == sorted(expected)


def test_a_layer_recomputes_everything_if_the_one_below_drifted_or_did() -> None:
    grown = kept = 0
    for view, layer, rows in heard(ElasticCache(window=3), problem()):
        for sequence in range(rows.shape[0]):
            full = bool(rows[sequence].all())
            below = bool((layer.below | ~view.is_valid)[sequence].all())
            drifted = bool(layer.attention_drift[sequence] > 0.1)
            assert full == (layer.layer > 0 and (below or drifted))
            grown, kept = grown + full, kept + (not full)
    assert grown > 0
    assert kept > 0


def test_rows_never_shrink_with_depth() -> None:
    for step in problem().run(ElasticCache(window=3), UNEVEN).trace:
        for layer in range(1, 4):
            assert bool((step.layer(layer) | ~step.layer(layer - 1)).all())


def test_a_stricter_threshold_recomputes_at_least_as_much_in_the_first_reusing_step() -> None:
    rows = [problem().run(ElasticCache(window=3, gamma=gamma)).trace[1].rows_computed for gamma in (0.0, 0.9, 0.99)]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoder", [ONE_BY_ONE, UNEVEN])
def test_gamma_of_one_is_exact(decoder: str, family: Family) -> None:
    run, truth = problem(family).run(ElasticCache(gamma=1), decoder), problem(family).run("none", decoder)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in truth.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.spec)
@pytest.mark.parametrize("padded", [False, True])
def test_a_sequence_does_not_depend_on_its_batch(policy: ElasticCache, family: Family, padded: bool) -> None:
    together = problem(family)
    if not padded:
        together = together.evolve(is_valid=torch.ones_like(together.is_valid))
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

    policy = ElasticCache
    exact = ElasticCache(gamma=1)
