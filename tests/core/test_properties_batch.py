"""Property 4: a sequence's result does not depend on its batch, its padding, or another that finishes early."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import freshkv
from freshkv import CachePolicy, Commit, Decoder, Prediction, Selection, StepView
from freshkv.testing import NetworkShape, Problem
from freshkv.testing.strategies import left_padded, problems
from tests.core.support import (
    DECODERS,
    POLICIES,
    any_decoder,
    any_policy,
    assert_same_confidence,
    decoders_of,
    examples,
    own_steps,
    policies_of,
)


def assert_same_alone(problem: Problem, run: freshkv.Run, sequence: int, policy: object, decoder: object) -> None:
    """A sequence of ``run`` went as it does by itself, without padding: own steps, tokens, order, rows."""
    alone = problem.alone(sequence).run(policy, decoder)
    start, prompt = problem.padding(sequence), problem.prompt_length
    mine = own_steps(run, sequence)
    assert len(mine) == len(alone.trace)
    for number, (here, there) in enumerate(zip(mine, alone.trace, strict=True)):
        for name in ("tokens", "committed", "remasked", "added"):
            assert torch.equal(getattr(here, name)[sequence, start:], getattr(there, name)[0]), f"{name}, {number}"
        for layer in range(problem.shape.layers):
            rows, alone_rows = here.layer(layer)[sequence, start:], there.layer(layer)[0]
            assert torch.equal(rows, alone_rows), f"rows of layer {layer}, step {number}"
        assert_same_confidence(here.confidence[sequence, prompt:], there.confidence[0, prompt - start :])
    assert torch.equal(run.sequences[sequence, start:], alone.sequences[0])
    assert run.produced[sequence] == alone.produced[0]


@pytest.mark.parametrize("name", POLICIES)
def test_a_sequence_does_not_depend_on_its_batch_or_padding(name: str) -> None:
    @examples(30)
    @given(problems(), policies_of(name), any_decoder())
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        run = problem.run(policy, decoder)
        for sequence in range(problem.batch):
            assert_same_alone(problem, run, sequence, policy, decoder)

    check()


@pytest.mark.parametrize("name", DECODERS)
def test_no_decoder_lets_sequences_influence_each_other(name: str) -> None:
    @examples(15)
    @given(problems(), any_policy(), decoders_of(name))
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        run = problem.run(policy, decoder)
        for sequence in range(problem.batch):
            assert_same_alone(problem, run, sequence, policy, decoder)

    check()


@examples(20)
@given(problem=problems(max_batch=2), policy=any_policy(), decoder=any_decoder(), content=st.integers(0, 2**16))
def test_what_padding_holds_does_not_matter(
    problem: Problem, policy: CachePolicy, decoder: Decoder, content: int
) -> None:
    other = torch.randint(
        0, problem.shape.vocabulary, problem.input_ids.shape, generator=torch.Generator().manual_seed(content)
    )
    filled = problem.evolve(input_ids=torch.where(problem.is_valid, problem.input_ids, other))
    first, second = problem.run(policy, decoder), filled.run(policy, decoder)
    assert len(first.trace) == len(second.trace)
    for one, other_step in zip(first.trace, second.trace, strict=True):
        assert torch.equal(one.committed, other_step.committed)
        response = slice(problem.prompt_length, None)
        assert torch.equal(one.tokens[:, response], other_step.tokens[:, response])


@frozen
class Uneven(Decoder):
    """A sequence commits as many tokens as its first token says: sequences drift apart and finish apart."""

    name = "test-uneven"

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        first_token = view.tokens.gather(1, view.is_valid.long().argmax(dim=1, keepdim=True))
        count = prediction.positions.long().cumsum(dim=1)
        return Commit(prediction.positions & (count <= 1 + first_token % 3), prediction.tokens)


def uneven_problem() -> Problem:
    """Three sequences that take one, two and three tokens a step, with one, no and two columns of padding."""
    return Problem(
        shape=NetworkShape(family="dream", heads=4, kv_heads=2),
        input_ids=torch.tensor([[9, 3, 7, 5], [1, 8, 2, 6], [4, 4, 5, 9]]),
        is_valid=left_padded((1, 0, 2), 4),
        gen_length=12,
        block_length=6,
        seeds=(1, 2, 3),
    )


#: options with which up to three positions are predicted, so that sequences of different pace part
WIDE = {name: f"{name}:budget=0.75" for name in ("oracle", "random")}


@pytest.mark.parametrize("policy", [WIDE.get(name, name) for name in POLICIES])
def test_sequences_that_drift_apart_and_finish_apart_stay_independent(policy: str) -> None:
    problem = uneven_problem()
    run = problem.run(policy, Uneven())
    lengths = [len(own_steps(run, sequence)) for sequence in range(3)]
    assert len(set(lengths)) == 3, "the sequences should finish at different times"
    for sequence in range(3):
        assert_same_alone(problem, run, sequence, policy, Uneven())


@pytest.mark.parametrize("policy", [WIDE.get(name, name) for name in POLICIES])
def test_sequences_that_keep_pace_with_others_than_their_neighbours_stay_independent(policy: str) -> None:
    tokens = torch.tensor([[9, 3, 7, 5], [1, 8, 2, 6], [6, 4, 5, 9], [4, 1, 1, 7], [2, 2, 8, 3]])
    problem = uneven_problem().evolve(input_ids=tokens, is_valid=left_padded((0,) * 5, 4), seeds=(1, 2, 3, 4, 5))
    run = problem.run(policy, Uneven())
    assert [len(own_steps(run, sequence)) for sequence in range(5)] == [12, 6, 12, 6, 4]
    for sequence in range(5):
        assert_same_alone(problem, run, sequence, policy, Uneven())


@frozen
class Notes(CachePolicy):
    """Remembers the tokens of the moment a block opened, and says nothing in other steps."""

    name = "test-notes"

    def select(self, view: StepView) -> Selection:
        noted = view.memory.get("noted", view.tokens)
        refresh = view.is_valid & (noted % 2 == 0)
        remember = {"noted": view.tokens} if view.is_block_start else {}
        return Selection(predict=view.in_block, refresh=refresh, remember=remember)


def test_what_a_policy_remembers_stays_until_it_is_named_again_whatever_the_others_do() -> None:
    problem = uneven_problem()
    run = problem.run(Notes(), Uneven())
    for sequence in range(3):
        assert_same_alone(problem, run, sequence, Notes(), Uneven())


@frozen
class NotingDecoder(Uneven):
    """Remembers at a block's start which tokens there were; the parity of their sum decides how many it commits."""

    name = "test-noting-decoder"

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        commit = super().decode(view, prediction)
        noted: Tensor = view.memory.get("noted", view.tokens)
        total = (noted * view.is_valid).sum(dim=1, keepdim=True)
        count = prediction.positions.long().cumsum(dim=1)
        positions = commit.positions & ((total % 2 == 0) | (count == 1))
        return evolve(commit, positions=positions, remember={"noted": view.tokens} if view.is_block_start else {})


def test_what_a_decoder_remembers_stays_until_it_is_named_again_whatever_the_others_do() -> None:
    for seed in range(6):
        problem = uneven_problem().evolve(shape=NetworkShape(seed=seed))
        run = problem.run("none", NotingDecoder())
        for sequence in range(3):
            assert_same_alone(problem, run, sequence, "none", NotingDecoder())
