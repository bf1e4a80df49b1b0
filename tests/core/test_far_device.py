"""On another device than the host: the same tokens, nothing left on the wrong side, and few waits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import freshkv
from freshkv.testing.networks import FAMILIES, MORE_FAMILIES, Family, NetworkShape
from tests.core.far_device import decode, drift_of, serve


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("policy", freshkv.policies())
def test_every_policy_keeps_to_the_device(policy: str, batch: int) -> None:
    outcome = decode(policy=policy, batch=batch)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("decoder", freshkv.decoders())
def test_every_decoder_keeps_to_the_device(decoder: str) -> None:
    outcome = decode(decoder=decoder, batch=3, eos_token_id=3)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_every_family_keeps_to_the_device(family: Family) -> None:
    outcome = decode(shape=NetworkShape(family=family), policy="d2cache", batch=3)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("sampling", [{"temperature": 0.7}, {"temperature": 1.0, "top_p": 0.8, "top_k": 5}])
def test_random_numbers_do_not_depend_on_the_device(sampling: dict[str, Any]) -> None:
    outcome = decode(batch=3, **sampling)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("policy", ["none", "prefix", "dual", "d2cache"])
@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_waits_while_a_pass_is_recorded(policy: str, batch: int) -> None:
    """A CUDA graph cannot hold it."""
    outcome = decode(policy=policy, batch=batch, record=True)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("policy", ["none", "prefix", "dual", "d2cache"])
@pytest.mark.parametrize(("decoder", "batch"), [("confidence", 1), ("confidence", 3), ("threshold", 1), ("klass", 1)])
def test_the_host_waits_twice_a_step(policy: str, decoder: str, batch: int) -> None:
    """For the rows, and for what has become of the step; uploads do not block."""
    outcome = decode(policy=policy, decoder=decoder, batch=batch)
    assert len(outcome.steps) > 3
    assert all(step == {"fetched": 1, "tolist": 1} for step in outcome.steps)


def test_a_policy_that_hides_keys_makes_it_wait_twice_more() -> None:
    """Whether any key is left, and whether those seen are as before, and few. Of others than before, how many."""
    outcome = decode(policy="block", batch=3)
    assert max(step.total() for step in outcome.steps) <= 5
    assert {step.total() for step in outcome.steps[2:8]} == {4}


def test_a_layerwise_policy_makes_the_host_wait_once_a_layer() -> None:
    """For the rows that it chose; and once for those that are probed."""
    shape = NetworkShape(layers=4)
    outcome = decode(policy="dllm:kp=50,kr=50,rou=0.25", shape=shape)
    assert max(step.total() for step in outcome.steps) <= 2 + 1 + shape.layers


def test_a_run_is_fetched_in_a_few_pieces() -> None:
    """And not step by step."""
    outcome = decode()
    assert len(outcome.steps) == 16
    assert outcome.afterwards.total() < 16


@pytest.mark.parametrize("policy", ["dual", "d2cache", "dllm"])
def test_requests_and_drift_keep_to_the_device(policy: str) -> None:
    near, far = serve(policy=policy)
    assert far == near
    near, far = drift_of(policy=policy)
    for name, found in far.items():  # another kernel computes norms there
        torch.testing.assert_close(torch.tensor(found), torch.tensor(near[name]), equal_nan=True)
