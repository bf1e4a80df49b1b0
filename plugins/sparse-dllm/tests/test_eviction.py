"""``sparse-dllm``: which keys are visible on hand-made views and in runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from freshkv import StepView
from freshkv.testing import PolicyContract, asked, columns, example_problem
from freshkv_sparse_dllm import SparseDLLM

SEQ = 10


def step_view(scores: list[list[float]], step_in_block: int = 2, padding: int = 0) -> StepView:
    """Four positions of prompt, a block at 4 and 5, another behind it; scores, [layers][seq]."""
    position = torch.arange(SEQ)[None]
    return StepView(
        tokens=torch.zeros(1, SEQ, dtype=torch.long),
        is_masked=position >= 4,
        is_open=position >= 4,
        is_prompt=position < 4,
        is_valid=position >= padding,
        in_block=(position == 4) | (position == 5),
        block_index=torch.where(position < 4, -1, (position - 4) // 2),
        block_length=2,
        gen_length=SEQ - 4,
        step=step_in_block,
        step_in_block=step_in_block,
        dirty=position < 0,
        age=torch.ones(1, SEQ, dtype=torch.long),
        committed_at=torch.full((1, SEQ), -1),
        confidence=torch.full((1, SEQ), -torch.inf),
        sequence=torch.zeros(1, dtype=torch.long),
        signals={"attention_scores": torch.tensor([scores])},
    )


def seen(policy: SparseDLLM, view: StepView) -> list[list[int]]:
    """Visible keys of each layer."""
    visible = policy.select(view).visible
    assert visible is not None
    return [columns(layer) for layer in visible[0]]


def test_each_layer_keeps_the_keys_that_are_asked_for_most() -> None:
    first = [0.1, 0.4, 0.0, 0.0, 0.9, 0.9, 0.0, 0.0, 0.3, 0.2]
    second = [0.0, 0.0, 0.2, 0.3, 0.9, 0.9, 0.4, 0.5, 0.0, 0.0]
    policy = SparseDLLM(retention=0.5, kernel=1)
    assert seen(policy, step_view([first, second])) == [[0, 1, 4, 5, 8, 9], [2, 3, 4, 5, 6, 7]]


def test_neighbours_of_a_high_score_stay_and_the_block_lends_none() -> None:
    received = [0.0, 0.9, 0.0, 0.1, 5.0, 5.0, 0.2, 0.0, 0.0, 0.3]
    assert seen(SparseDLLM(retention=0.5, kernel=3), step_view([received])) == [[0, 1, 2, 4, 5, 8]]


def test_padding_counts_for_nothing() -> None:
    received = [9.0, 9.0, 0.2, 0.1, 0.0, 0.0, 0.4, 0.0, 0.0, 0.3]
    # six keys lie outside the block, half of them stay
    assert seen(SparseDLLM(retention=0.5, kernel=1), step_view([received], padding=2)) == [[2, 4, 5, 6, 9]]


def test_no_retention_leaves_the_block_and_full_retention_hides_nothing() -> None:
    view = step_view([[0.1] * SEQ])
    assert seen(SparseDLLM(retention=0), view) == [[4, 5]]
    assert seen(SparseDLLM(retention=1), view) == [list(range(SEQ))]


def test_the_choice_is_remembered_for_the_rest_of_the_block() -> None:
    questions = asked(SparseDLLM(), example_problem())
    chosen: Tensor | None = None
    for view, selection in questions:
        if view.step_in_block <= 1:
            assert selection.visible is None
            assert bool(selection.predict.all())
            continue
        assert selection.visible is not None
        assert torch.equal(selection.predict, view.in_block)
        if view.step_in_block == 2:
            chosen = selection.visible
            outside = (chosen & (view.is_valid & ~view.in_block)[:, None]).sum(dim=2)
            assert outside.tolist() == [[count] * 4 for count in (7, 6, 5)]
        assert chosen is not None
        assert torch.equal(selection.visible, chosen)
    assert {view.step_in_block for view, _ in questions} == {0, 1, 2, 3}


@pytest.mark.parametrize("delay", [0, 1, 2])
def test_everything_is_refreshed_until_the_keys_are_chosen(delay: int) -> None:
    trace = example_problem().alone(0).run(SparseDLLM(delay=delay)).trace
    for number, step in enumerate(trace):
        block = range(6 + number // 4 * 4, 10 + number // 4 * 4)
        assert columns(step.refreshed[0]) == list(range(18) if number % 4 <= delay else block)


def test_hidden_keys_change_the_run() -> None:
    sparse, full = (example_problem().run(SparseDLLM(retention=share, delay=0)) for share in (0.0, 1.0))
    assert torch.equal(sparse.trace[0].tokens, full.trace[0].tokens)
    assert not torch.equal(sparse.trace[1].confidence, full.trace[1].confidence)


def test_full_retention_without_delay_is_the_dual_cache() -> None:
    run, dual = (
        example_problem().run(SparseDLLM(retention=1, delay=0), "threshold:threshold=0.2"),
        example_problem().run("dual", "threshold:threshold=0.2"),
    )
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in dual.trace]


def test_the_pooling_width_must_be_odd() -> None:
    with pytest.raises(ValueError, match="must be odd: 2"):
        SparseDLLM(kernel=2)


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = SparseDLLM
    exact = SparseDLLM(delay=99)
