"""Property 7: temperature 0 is deterministic; a seed makes sampling so, a sequence at a time."""

from __future__ import annotations

import torch
from attrs import evolve
from hypothesis import given

from freshkv import CachePolicy, Decoder
from freshkv.core.sampling import Sampling
from freshkv.decoders.dream import DreamDecoder
from freshkv.testing import NetworkShape, Problem
from freshkv.testing.strategies import left_padded, problems
from tests.core.support import any_decoder, any_policy, assert_same_run, examples


@examples(40)
@given(problem=problems(), policy=any_policy(), decoder=any_decoder())
def test_the_same_arguments_give_the_same_run(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    first = problem.run(policy, decoder)
    torch.rand(7)  # the global generator plays no part
    second = problem.run(policy, decoder)
    assert_same_run(first, second)
    for one, other in zip(first.trace, second.trace, strict=True):
        assert torch.equal(one.confidence, other.confidence)
        assert torch.equal(one.refreshed, other.refreshed)


@examples(25)
@given(problem=problems(greedy=True), policy=any_policy(), decoder=any_decoder())
def test_at_temperature_0_seeds_change_only_what_is_random_in_the_order(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    # Dream's origin, or a temperature of its own, draws the order of positions at random, and with it the tokens
    if getattr(decoder, "score", None) == "random" or isinstance(decoder, DreamDecoder):
        return
    other = problem.evolve(seeds=tuple(seed + 1 for seed in problem.seeds))
    assert_same_run(problem.run(policy, decoder), other.run(policy, decoder))


@examples(25)
@given(problem=problems(max_batch=3), policy=any_policy(), decoder=any_decoder())
def test_the_seed_of_one_sequence_changes_no_other(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    sampled = problem.evolve(sampling=Sampling(temperature=2.0))
    reseeded = sampled.evolve(seeds=(sampled.seeds[0] + 1, *sampled.seeds[1:]))
    first, second = sampled.run(policy, decoder), reseeded.run(policy, decoder)
    assert torch.equal(first.sequences[1:], second.sequences[1:])


def sampled_problem(batch: int) -> Problem:
    return Problem(
        shape=NetworkShape(vocabulary=60, mask_token_id=59),
        input_ids=torch.tensor([[1, 2, 3]]).expand(batch, -1),
        is_valid=left_padded((0,) * batch, 3),
        gen_length=12,
        block_length=12,
        seeds=tuple(range(batch)),
        sampling=Sampling(temperature=5.0),
    )


def test_different_seeds_draw_different_tokens_and_equal_seeds_equal_ones() -> None:
    problem = evolve(sampled_problem(4), seeds=(1, 2, 3, 1))
    sequences = problem.run("none").sequences
    assert torch.equal(sequences[0], sequences[3])
    assert len({tuple(row) for row in sequences.tolist()}) == 3


def test_sampled_tokens_follow_the_distribution_of_the_model() -> None:
    """The first committed token of 4000 seeds, against the probabilities of the network (chi-squared, 11 bins)."""
    count = 4000
    problem = sampled_problem(count).evolve(shape=NetworkShape(vocabulary=12, mask_token_id=11), gen_length=1)
    problem = problem.evolve(block_length=1, sampling=Sampling(temperature=0.7, top_k=5))
    drawn = problem.run("none").responses[:, 0].bincount(minlength=12)
    tokens = torch.cat((problem.input_ids[:1], torch.tensor([[11]])), dim=1)
    logits = problem.network.forward(tokens).logits[0, -1] / 0.7
    logits[11] = float("-inf")
    kept = logits.masked_fill(logits < logits.topk(5).values[-1], float("-inf"))
    expected = kept.softmax(dim=0) * count
    assert drawn[expected == 0].sum() == 0
    likely = expected > 0
    deviation = ((drawn[likely] - expected[likely]) ** 2 / expected[likely]).sum()
    assert float(deviation) < 18.5, "beyond the 0.1% quantile of chi-squared with 4 degrees of freedom"
