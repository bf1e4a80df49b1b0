"""``es-dllm``: rows by layer on hand-made views and on runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from freshkv import LayerView, StepView
from freshkv.testing import NetworkShape, PolicyContract, Problem, wrapped
from freshkv.testing.networks import FAMILIES, Family
from freshkv_es_dllm import EarlySkipping

POLICIES = (
    EarlySkipping(block_every=3),
    EarlySkipping(second_skip=0.75, alpha=0, block_every=4, refresh_every=3),
    EarlySkipping(first_skip=0, second_skip=1, alpha=1),
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


SEQ = 10


def mask(*where: int) -> Tensor:
    """bool [1, seq]."""
    return torch.isin(torch.arange(SEQ), torch.tensor(where))[None]


def step_view(step_in_block: int, confidence: dict[int, float], decided: int) -> StepView:
    """Two positions of prompt and one block of eight, one of which was decided in the last step."""
    known = torch.full((1, SEQ), -torch.inf)
    for position, value in confidence.items():
        known[0, position] = value
    response, undecided = mask(*range(2, SEQ)), mask(*range(2, SEQ)) & ~mask(decided)
    return StepView(
        tokens=torch.zeros(1, SEQ, dtype=torch.long),
        is_masked=undecided,
        is_open=undecided,
        is_prompt=~response,
        is_valid=mask(*range(SEQ)),
        in_block=response,
        block_index=torch.where(response, 0, -1),
        block_length=8,
        step=step_in_block,
        step_in_block=step_in_block,
        dirty=mask(decided),
        age=torch.ones(1, SEQ, dtype=torch.long),
        committed_at=torch.full((1, SEQ), -1),
        confidence=known,
        sequence=torch.zeros(1, dtype=torch.long),
    )


def layer_view(layer: int, movement: dict[int, float], below: Tensor) -> LayerView:
    """One of eight layers, so that rows drop out at the layers 1 and 2."""
    moved = torch.full((1, SEQ), torch.nan)
    moved[0, 2:] = 0.0
    for position, value in movement.items():
        moved[0, position] = value
    return LayerView(layer, 8, moved, below, torch.full((1,), torch.nan))


def test_the_most_important_rows_stay() -> None:
    policy = EarlySkipping(alpha=0.5)
    view = step_view(1, {2: 0.9, 3: 0.8, 4: 0.6, 5: 0.1, 6: 0.1, 7: 0.1, 8: 0.1, 9: 0.1}, decided=9)
    assert positions(policy.select_layer(view, layer_view(0, {}, view.nothing))[0]) == [2, 3, 4, 5, 6, 7, 8, 9]
    # 2 and 3 are the surest, 9 was just decided; then 0.5 * 0.1 + 0.5 * 0.7 beats 0.5 * 0.6
    first = policy.select_layer(view, layer_view(1, {7: 0.7}, mask(*range(2, SEQ))))
    assert positions(first[0]) == [2, 3, 7, 9]
    # of eight rows a quarter is two, but what was just decided and the two surest never drop out
    second = policy.select_layer(view, layer_view(2, {7: 0.7}, first))
    assert positions(second[0]) == [2, 3, 9]
    assert policy.select_layer(view, layer_view(3, {7: 0.7}, second)) is second


def test_alpha_weighs_confidence_against_movement() -> None:
    view = step_view(1, {2: 0.9, 3: 0.8, 4: 0.6, 5: 0.1}, decided=9)
    at_skip = layer_view(1, {7: 0.7}, mask(*range(2, SEQ)))
    assert positions(EarlySkipping(alpha=1).select_layer(view, at_skip)[0]) == [2, 3, 4, 9]
    assert positions(EarlySkipping(alpha=0).select_layer(view, at_skip)[0]) == [2, 3, 7, 9]


def test_rows_that_dropped_out_do_not_come_back() -> None:
    view = step_view(1, {2: 0.9, 3: 0.8}, decided=9)
    below = mask(2, 3, 5, 6, 9)
    rows = EarlySkipping().select_layer(view, layer_view(1, {7: 5.0}, below))
    assert bool((below | ~rows).all())


def test_only_steps_that_choose_by_movement_probe() -> None:
    view = step_view(1, {}, decided=9)
    probe = EarlySkipping().probe(view)
    assert probe is not None
    assert positions(probe[0]) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert EarlySkipping(alpha=1).probe(view) is None
    assert EarlySkipping(block_every=1).probe(view) is None
    assert EarlySkipping(refresh_every=1).probe(view) is None


def test_block_and_canvas_are_refreshed_when_due() -> None:
    trace = problem(block_length=12).alone(0).run(EarlySkipping(block_every=3, refresh_every=4)).trace
    for number, step in enumerate(trace):
        everything, block = number % 4 == 0, number % 3 == 0
        expected = range(0 if everything else 6, 18)
        assert positions(step.layer(0)[0]) == list(expected)
        assert (positions(step.layer(3)[0]) == list(expected)) == (everything or block)


def test_rows_shrink_with_depth() -> None:
    for step in problem(block_length=12).run(EarlySkipping(second_skip=0.75), UNEVEN).trace:
        counts = step.rows_by_layer
        assert list(counts) == sorted(counts, reverse=True)
        for layer in range(1, 4):
            assert bool((step.layer(layer - 1) | ~step.layer(layer)).all())


def test_skipping_gets_by_with_fewer_rows_than_the_block() -> None:
    trace = problem(block_length=12).alone(0).run(EarlySkipping(second_skip=0.75)).trace
    assert trace[1].rows_by_layer == (12, 6, 6, 3)


def test_dream_keeps_the_rows_that_predict_the_surest_masks() -> None:
    """Every question of a run: the row before each of the two surest masks stays."""
    asked: list[tuple[StepView, LayerView, Tensor]] = []

    def recording(original: Callable[[StepView, LayerView], Tensor]) -> Callable[[StepView, LayerView], Tensor]:
        def select_layer(view: StepView, layer: LayerView) -> Tensor:
            rows = original(view, layer)
            asked.append((view, layer, rows))
            return rows

        return select_layer

    problem("dream", block_length=12).run(wrapped(EarlySkipping(), select_layer=recording))
    for view, _, rows in asked:
        sure = view.confidence.masked_fill(~(view.is_open & view.in_block), -1.0).argmax(dim=1)
        assert bool(rows.gather(1, sure[:, None] - 1).all())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoder", [ONE_BY_ONE, UNEVEN])
def test_refreshing_in_every_step_is_exact(decoder: str, family: Family) -> None:
    run, truth = problem(family).run(EarlySkipping(refresh_every=1), decoder), problem(family).run("none", decoder)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in truth.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.spec)
def test_a_sequence_does_not_depend_on_its_batch(policy: EarlySkipping, family: Family) -> None:
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

    policy = EarlySkipping
    exact = EarlySkipping(refresh_every=1)
