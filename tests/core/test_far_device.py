"""On another device than the host: the same tokens, nothing left on the wrong side, and few waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import torch

import freshkv
from freshkv.testing.networks import FAMILIES, MORE_FAMILIES, Family, NetworkShape
from tests.core.far_device import Outcome, decode, drift_of, serve

Decode = Callable[..., Outcome]


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """Another process, for which the device is registered."""
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def decoded(process: ProcessPoolExecutor) -> Decode:
    """Decodes there."""
    return lambda **options: process.submit(decode, **options).result()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("policy", freshkv.policies())
def test_every_policy_keeps_to_the_device(decoded: Decode, policy: str, batch: int) -> None:
    outcome = decoded(policy=policy, batch=batch)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("decoder", freshkv.decoders())
def test_every_decoder_keeps_to_the_device(decoded: Decode, decoder: str) -> None:
    outcome = decoded(decoder=decoder, batch=3, eos_token_id=3)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_every_family_keeps_to_the_device(decoded: Decode, family: Family) -> None:
    outcome = decoded(shape=NetworkShape(family=family), policy="d2cache", batch=3)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("sampling", [{"temperature": 0.7}, {"temperature": 1.0, "top_p": 0.8, "top_k": 5}])
def test_random_numbers_do_not_depend_on_the_device(decoded: Decode, sampling: dict[str, Any]) -> None:
    outcome = decoded(batch=3, **sampling)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("policy", ["none", "prefix", "dual", "d2cache"])
@pytest.mark.parametrize("batch", [1, 3])
def test_nothing_waits_while_a_pass_is_recorded(decoded: Decode, policy: str, batch: int) -> None:
    """A CUDA graph cannot hold it."""
    outcome = decoded(policy=policy, batch=batch, record=True)
    assert outcome.far == outcome.near


@pytest.mark.parametrize("policy", ["none", "prefix", "dual", "d2cache"])
@pytest.mark.parametrize(("decoder", "batch"), [("confidence", 1), ("confidence", 3), ("threshold", 1), ("klass", 1)])
def test_the_host_waits_twice_a_step(decoded: Decode, policy: str, decoder: str, batch: int) -> None:
    """For the rows, and for what has become of the step; uploads do not block."""
    outcome = decoded(policy=policy, decoder=decoder, batch=batch)
    assert len(outcome.steps) > 3
    assert all(step == {"fetched": 1, "tolist": 1} for step in outcome.steps)


@pytest.mark.parametrize("policy", ["dpad", "block"])
def test_a_policy_that_hides_keys_makes_it_wait_twice_more(decoded: Decode, policy: str) -> None:
    """Whether any key is left, and whether those seen are as before, and few. Of others than before, how many."""
    outcome = decoded(policy=policy, batch=3)
    assert max(step.total() for step in outcome.steps) <= 5
    assert {step.total() for step in outcome.steps[2:8]} == {4}


def test_a_layerwise_policy_makes_the_host_wait_once_a_layer(decoded: Decode) -> None:
    """For the rows that it chose; and once for those that are probed."""
    shape = NetworkShape(layers=4)
    outcome = decoded(policy="dllm:kp=50,kr=50,rou=0.25", shape=shape)
    assert max(step.total() for step in outcome.steps) <= 2 + 1 + shape.layers


def test_a_run_is_fetched_in_a_few_pieces(decoded: Decode) -> None:
    """And not step by step."""
    outcome = decoded()
    assert len(outcome.steps) == 16
    assert outcome.afterwards.total() < 16


@pytest.mark.parametrize("policy", ["dual", "d2cache", "dllm"])
def test_requests_and_drift_keep_to_the_device(process: ProcessPoolExecutor, policy: str) -> None:
    near, far = process.submit(serve, policy=policy).result()
    assert far == near
    near, far = process.submit(drift_of, policy=policy).result()
    for name, found in far.items():  # another kernel computes norms there
        torch.testing.assert_close(torch.tensor(found), torch.tensor(near[name]), equal_nan=True)
