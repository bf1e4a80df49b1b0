"""Property 1: a policy whose update sets are full gives the uncached run."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from freshkv import CachePolicy, LayerView, LayerwisePolicy, Selection, StepView
from freshkv.testing import Problem, refreshing_everything
from freshkv.testing.strategies import problems
from tests.core.support import POLICIES, any_decoder, assert_same_run, examples, policies_of


@frozen
class Everything(CachePolicy):
    """Says ``refresh`` where ``none`` says ``predict``."""

    name = "test-everything"

    def select(self, view: StepView) -> Selection:
        return Selection(predict=view.nothing, refresh=view.everything)


@frozen
class EveryLayer(LayerwisePolicy):
    """Everything on the carried path."""

    name = "test-every-layer"

    def select_layer(self, view: StepView, layer: LayerView) -> torch.Tensor:
        return view.everything


FULL = (
    Everything(),
    EveryLayer(),
    "dllm:kp=1,kr=1",
    "dllm:kp=1,kr=7,rou=1",
    "d2cache:current_k=100,rollout_p=1",
    "frontier:refresh_every=1",
    "oracle:budget=1",
    "random:budget=1",
)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_whose_refresh_is_widened_to_everything_gives_the_uncached_run(name: str) -> None:
    @examples(25)
    @given(problems(), policies_of(name), any_decoder())
    def check(problem: Problem, policy: CachePolicy, decoder: object) -> None:
        assert_same_run(problem.run(refreshing_everything(policy), decoder), problem.run("none", decoder))

    check()


@pytest.mark.parametrize("policy", FULL, ids=lambda policy: policy if isinstance(policy, str) else policy.spec)
def test_a_policy_that_is_configured_to_be_full_gives_the_uncached_run(policy: str | CachePolicy) -> None:
    @examples(25)
    @given(problems(), any_decoder())
    def check(problem: Problem, decoder: object) -> None:
        run = problem.run(policy, decoder)
        assert_same_run(run, problem.run("none", decoder))
        for step in run.trace:
            valid = torch.cat((problem.is_valid, problem.is_valid.new_ones(problem.batch, problem.gen_length)), dim=1)
            assert bool((step.refreshed | ~valid)[step.active].all()), "a row of a full update set was left out"

    check()


@pytest.mark.parametrize("name", ["prefix", "dual"])
@examples(25)
@given(problem=problems(), decoder=st.sampled_from(("confidence:tokens_per_step=4", "threshold:threshold=0")))
def test_block_caches_are_exact_when_every_block_takes_one_step(name: str, problem: Problem, decoder: str) -> None:
    assert_same_run(problem.run(name, decoder), problem.run("none", decoder))


@examples(30)
@given(problem=problems(greedy=True, double=None))
def test_the_uncached_run_sees_what_the_plain_model_says(problem: Problem) -> None:
    run, spec = problem.run("none", "confidence"), problem.network.network_spec
    valid = torch.cat((problem.is_valid, problem.is_valid.new_ones(problem.batch, problem.gen_length)), dim=1)
    tokens = torch.cat((problem.input_ids, torch.full((problem.batch, problem.gen_length), spec.mask_token_id)), dim=1)
    for step in run.trace:
        logits = problem.network.forward(tokens, valid).logits.roll(spec.logits_shift, dims=1)
        probabilities = logits.softmax(dim=-1)
        probabilities[..., spec.mask_token_id] = 0
        confidence, proposed = probabilities.max(dim=-1)
        assert torch.equal(step.tokens[step.committed], proposed[step.committed])
        torch.testing.assert_close(
            step.confidence[step.committed], confidence[step.committed].float(), rtol=1e-4, atol=1e-5
        )
        tokens = step.tokens
