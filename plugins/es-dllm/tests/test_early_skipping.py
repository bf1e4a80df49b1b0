"""``es-dllm``: rows by layer on hand-made views and on runs."""

from __future__ import annotations

import torch

from freshkv import LayerView, StepView
from freshkv.testing import PolicyContract, asked, columns, example_problem
from freshkv_es_dllm import EarlySkipping

SEQ = 10


def mask(*where: int) -> torch.Tensor:
    """bool [1, seq]."""
    return torch.isin(torch.arange(SEQ), torch.tensor(where))[None]


def step_view(step_in_block: int, confidence: dict[int, float], decided: int, shift: int = 0) -> StepView:
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
        gen_length=SEQ - 2,
        step=step_in_block,
        step_in_block=step_in_block,
        dirty=mask(decided),
        age=torch.ones(1, SEQ, dtype=torch.long),
        committed_at=torch.full((1, SEQ), -1),
        confidence=known,
        sequence=torch.zeros(1, dtype=torch.long),
        row_offset=shift,
    )


def layer_view(layer: int, movement: dict[int, float], below: torch.Tensor) -> LayerView:
    """One of eight layers: hidden states are looked at where they leave the layers 1 and 2."""
    moved = torch.full((1, SEQ), torch.nan)
    for row in columns(below[0]):
        moved[0, row] = movement.get(row, 0.0)
    return LayerView(layer, 8, moved, below, torch.full((1,), torch.nan))


BLOCK = mask(*range(2, SEQ))


def test_the_most_important_rows_stay() -> None:
    policy = EarlySkipping(alpha=0.5)
    view = step_view(1, {2: 0.1, 3: 0.9, 4: 0.8, 5: 0.6, 6: 0.1, 7: 0.1, 8: 0.1, 9: 0.1}, decided=9)
    for layer in (0, 1):
        below = view.nothing if layer == 0 else BLOCK
        assert columns(policy.select_layer(view, layer_view(layer, {}, below))[0]) == [2, 3, 4, 5, 6, 7, 8, 9]
    # 2 is leftmost, 3 and 4 are the surest, 9 was just decided
    first = policy.select_layer(view, layer_view(2, {7: 0.7}, BLOCK))
    assert columns(first[0]) == [2, 3, 4, 9]
    # of eight rows a quarter is two, but none of these ever drops out
    second = policy.select_layer(view, layer_view(3, {7: 0.7}, first))
    assert torch.equal(second, first)
    assert policy.select_layer(view, layer_view(4, {7: 0.7}, second)) is second


def test_of_the_others_importance_decides() -> None:
    view = step_view(1, {2: 0.1, 3: 0.9, 4: 0.8, 5: 0.6, 6: 0.1, 7: 0.1}, decided=9)
    at_skip = layer_view(2, {7: 0.7}, BLOCK)
    five = {"skip_ratio": 0.375}  # five of eight rows stay: one besides those that always do
    assert columns(EarlySkipping(**five, alpha=1).select_layer(view, at_skip)[0]) == [2, 3, 4, 5, 9]
    assert columns(EarlySkipping(**five, alpha=0).select_layer(view, at_skip)[0]) == [2, 3, 4, 7, 9]
    # 0.5 * 0.1 + 0.5 * 0.7 beats 0.5 * 0.6, until a movement above 1 makes all of them shares of the largest
    assert columns(EarlySkipping(**five).select_layer(view, at_skip)[0]) == [2, 3, 4, 7, 9]
    scaled = layer_view(2, {7: 0.7, 3: 3.5}, BLOCK)
    assert columns(EarlySkipping(**five).select_layer(view, scaled)[0]) == [2, 3, 4, 5, 9]


def test_dream_weighs_a_row_by_the_confidence_of_what_it_predicts() -> None:
    view = step_view(1, {2: 0.1, 3: 0.9, 4: 0.8, 5: 0.1, 6: 0.1, 7: 0.6}, decided=9, shift=1)
    rows = EarlySkipping(skip_ratio=0.25, alpha=1).select_layer(view, layer_view(2, {}, mask(*range(1, SEQ))))
    # rows 1, 2 and 3 predict the leftmost and the surest; row 6 predicts 7, and row 9 was just decided; then ties
    assert columns(rows[0]) == [1, 2, 3, 4, 6, 9]


def test_rows_that_dropped_out_do_not_come_back() -> None:
    view = step_view(1, {2: 0.9, 3: 0.8}, decided=9)
    below = mask(2, 3, 5, 6, 9)
    rows = EarlySkipping().select_layer(view, layer_view(2, {7: 5.0}, below))
    assert bool((below | ~rows).all())


def test_rows_are_measured_only_where_some_drop_out() -> None:
    view = step_view(1, {}, decided=9)

    def probed(policy: EarlySkipping, layer: int) -> list[int] | None:
        rows = policy.probe_layer(view, layer, 8, BLOCK)
        return None if rows is None else columns(rows[0])

    whole = [2, 3, 4, 5, 6, 7, 8, 9]
    assert [probed(EarlySkipping(), layer) for layer in range(5)] == [None, None, whole, whole, None]
    assert [probed(EarlySkipping(moved="values"), layer) for layer in range(4)] == [None, whole, whole, None]
    assert [probed(EarlySkipping(alpha=1), layer) for layer in range(5)] == [None] * 5
    assert probed(EarlySkipping(block_every=1), 2) == []
    assert probed(EarlySkipping(refresh_every=1), 2) == []


def test_block_and_canvas_are_refreshed_when_due() -> None:
    trace = example_problem(block_length=12).alone(0).run(EarlySkipping(block_every=3, refresh_every=4)).trace
    for number, step in enumerate(trace):
        everything, block = number % 4 == 0, number % 3 == 0
        expected = range(0 if everything else 6, 18)
        assert columns(step.layer(0)[0]) == list(expected)
        assert (columns(step.layer(3)[0]) == list(expected)) == (everything or block)


def test_steps_are_counted_as_if_each_block_took_one_for_every_position() -> None:
    case = example_problem(block_length=4).alone(0)
    # two steps a block: those of the blocks count 0 and 1, 4 and 5, 8 and 9
    policy = EarlySkipping(block_every=5, refresh_every=8, skip_ratio=0.75)
    trace = case.run(policy, "confidence:tokens_per_step=2").trace
    assert [number for number, step in enumerate(trace) if bool(step.layer(0).all())] == [0, 4]
    same = [torch.equal(step.layer(0), step.layer(3)) for step in trace]
    assert [same[number] for number in (0, 3, 4)] == [True] * 3
    assert not same[2], "when the second block opens, the block is not yet due"


def test_rows_shrink_with_depth_and_only_those_left_are_decided() -> None:
    case = example_problem(block_length=12)
    for number, step in enumerate(case.run(EarlySkipping(second_skip=0.5), "threshold:threshold=0").trace):
        counts = step.rows_by_layer
        assert list(counts) == sorted(counts, reverse=True)
        for layer in range(1, 4):
            assert bool((step.layer(layer - 1) | ~step.layer(layer)).all())
        if number > 0:
            assert bool((step.layer(3) | ~step.committed).all())


def test_skipping_gets_by_with_fewer_rows_than_the_block() -> None:
    trace = example_problem(block_length=12).alone(0).run(EarlySkipping(first_skip=0.0, second_skip=0.5)).trace
    assert trace[1].rows_by_layer == (12, 6, 6, 4)  # a quarter is three, but four rows never drop out


def test_dream_keeps_the_rows_that_predict_the_surest_masks() -> None:
    for view, _, rows in asked(EarlySkipping(), example_problem("dream", block_length=12), method="select_layer"):
        sure = view.confidence.masked_fill(~(view.is_open & view.in_block), -1.0).argmax(dim=1)
        assert bool(rows.gather(1, sure[:, None] - 1).all())


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = EarlySkipping
    exact = EarlySkipping(refresh_every=1)
