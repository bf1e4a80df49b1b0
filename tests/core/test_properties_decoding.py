"""Property 5: only masked positions of the active block, at least one a step; prompts never change; runs end."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from hypothesis import given

import freshkv
from freshkv import CachePolicy, Commit, Decoder, Prediction, StepView
from freshkv.testing import NetworkShape, Problem, wrapped
from freshkv.testing.strategies import left_padded, problems
from tests.core.support import (
    DECODERS,
    FINAL_DECODERS,
    any_final_decoder,
    any_policy,
    decoders_of,
    examples,
    own_steps,
)


def first_eos(problem: Problem, tokens: torch.Tensor) -> int:
    """The response position of a sequence's first EOS, or its length."""
    found = [] if problem.eos_token_id is None else (tokens == problem.eos_token_id).nonzero()[:, 0].tolist()
    return min(found, default=problem.gen_length)


@pytest.mark.parametrize("name", DECODERS)
def test_every_step_commits_masked_positions_of_the_active_block_and_no_mask_token(name: str) -> None:
    @examples(20)
    @given(problems(), any_policy(), decoders_of(name))
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        mask, prompt = problem.shape.mask_token_id, problem.prompt_length
        run = problem.run(policy, decoder)
        for sequence in range(problem.batch):
            before = torch.full((problem.gen_length,), mask)
            for step in own_steps(run, sequence):
                committed, now = step.committed[sequence, prompt:], step.tokens[sequence, prompt:]
                open_positions = (before == mask).nonzero()[:, 0]
                active_block = int(open_positions[0]) // problem.block_length
                blocks = committed.nonzero()[:, 0] // problem.block_length
                assert blocks.tolist() == [active_block] * len(blocks) != [], "at least one, all in the active block"
                assert bool((before[committed] == mask).all()), "a decided position was committed"
                assert bool((now[committed] != mask).all()), "the mask token was committed"
                unchanged = ~committed & ~step.remasked[sequence, prompt:]
                assert torch.equal(now[unchanged], before[unchanged])
                assert not bool(step.committed[sequence, :prompt].any())
                before = now
        for step in run.trace:
            assert torch.equal(step.tokens[:, :prompt], problem.input_ids), "a prompt changed"
        assert torch.equal(run.sequences[:, :prompt], problem.input_ids)

    check()


@pytest.mark.parametrize("name", FINAL_DECODERS)
def test_a_run_ends_with_every_position_decided_up_to_the_first_eos(name: str) -> None:
    @examples(20)
    @given(problems(), any_policy(), decoders_of(name))
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        run = problem.run(policy, decoder)
        assert len(run.trace) <= problem.gen_length
        final = run.trace[-1].tokens[:, problem.prompt_length :]
        for sequence in range(problem.batch):
            end = first_eos(problem, final[sequence])
            assert bool((final[sequence, : end + 1] != problem.shape.mask_token_id).all())
            filled = run.responses[sequence, end + 1 :]
            undecided = final[sequence, end + 1 :] == problem.shape.mask_token_id
            assert set(filled[undecided].tolist()) <= {problem.eos_token_id}, "masks after an EOS become EOS"
            assert int(run.produced[sequence]) == min(end + 1, problem.gen_length)
        assert run.stats.tokens_committed == int((final != problem.shape.mask_token_id).sum())
        assert run.stats.tokens_produced == int(run.produced.sum())

    check()


@examples(25)
@given(problem=problems(), policy=any_policy(), decoder=any_final_decoder())
def test_blocks_are_decoded_strictly_in_order(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    run = problem.run(policy, decoder)
    for sequence in range(problem.batch):
        committed_at = run.trace.committed_at[sequence, problem.prompt_length :].unflatten(
            0, (-1, problem.block_length)
        )
        latest = -1
        for block in committed_at:
            decided = block[block >= 0]
            if decided.numel() > 0:
                assert int(decided.min()) > latest, "a block opened before the last was decided"
                latest = int(decided.max())


@frozen
class Flipper(Decoder):
    """Takes back whatever it committed in the step before: alone, it would never come to an end."""

    name = "test-flipper"
    revocable = True

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        best = prediction.positions & (prediction.positions.long().cumsum(dim=1) == 1)
        return Commit(best, prediction.tokens, remask=view.in_block & ~view.is_masked)


def test_a_run_ends_even_with_a_decoder_that_takes_back_all_it_commits() -> None:
    problem = Problem(
        shape=NetworkShape(),
        input_ids=torch.tensor([[1, 2]]),
        is_valid=left_padded((0,), 2),
        gen_length=4,
        block_length=4,
        seeds=(0,),
    )
    steps: list[int] = []

    def count(_: freshkv.StepRecord) -> None:
        steps.append(1)
        assert len(steps) < 1000, "still running after 1000 steps for 4 tokens"

    try:
        problem.run("none", Flipper(), on_step=count)
    except freshkv.FreshkvError as error:
        assert "Flipper" in str(error)  # noqa: PT017 - ending with an error is as good as ending


def bias_toward(problem: Problem, token: int) -> object:
    """The problem's network, but every position predicts ``token`` almost surely."""
    from freshkv.testing import WatchedNetwork

    class Biased(WatchedNetwork):
        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = super().logits(hidden)
            logits[:, token] = logits.max() + 20
            return logits

    return Biased(problem.network)


@examples(40)
@given(problem=problems(), policy=any_policy(), decoder=any_final_decoder())
def test_a_model_that_keeps_predicting_the_mask_token_comes_to_an_end_without_it(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    run = problem.run(policy, decoder, network=bias_toward(problem, problem.shape.mask_token_id))
    assert len(run.trace) <= problem.gen_length
    assert not bool((run.responses == problem.shape.mask_token_id).any())


def test_a_mask_token_in_the_prompt_is_a_token_like_any_other() -> None:
    shape = NetworkShape(mask_token_id=0)
    problem = Problem(
        shape=shape,
        input_ids=torch.tensor([[0, 5, 0, 0], [0, 0, 0, 3]]),
        is_valid=left_padded((0, 1), 4),
        gen_length=4,
        block_length=2,
        seeds=(0, 0),
    )
    masked: list[torch.Tensor] = []

    def watch(original):
        def select(view: StepView):
            masked.append(view.is_masked[:, :4])
            return original(view)

        return select

    run = problem.run(wrapped(freshkv.core.registry.resolve_policy("d2cache"), select=watch), "confidence")
    assert torch.equal(run.sequences[:, :4], problem.input_ids)
    assert not any(bool(mask.any()) for mask in masked)
    assert len(run.trace) == 4
