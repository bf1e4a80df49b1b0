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


@pytest.mark.parametrize("policy", ["none", "prefix", "dual", "d2cache", "block"])
@pytest.mark.parametrize(("decoder", "batch"), [("confidence", 1), ("confidence", 3), ("threshold", 1), ("klass", 1)])
def test_the_host_waits_once_a_step(policy: str, decoder: str, batch: int) -> None:
    """For what has become of the step and the rows of the next; where a block opens, for its rows once more."""
    outcome = decode(policy=policy, decoder=decoder, batch=batch)
    opening = outcome.block_starts
    assert len(outcome.waits) > 3
    assert all(step == {"fetched": 2 if opens else 1} for step, opens in zip(outcome.waits, opening, strict=True))


@pytest.mark.parametrize(("threshold", "eos_token_id"), [(0.15, None), (0.2, None), (0.2, 19)])
def test_sequences_that_part_make_it_wait_no_more(threshold: float, eos_token_id: int | None) -> None:
    """Where one has ended, the rows of those that stay are asked for once more, as where a block opens."""
    decoder = f"threshold:threshold={threshold}"
    outcome = decode(policy="d2cache", decoder=decoder, batch=3, eos_token_id=eos_token_id)
    assert len(set(outcome.batches)) > 1
    before = [outcome.batches[0], *outcome.batches]
    for waits, opens, batch, once in zip(outcome.waits, outcome.block_starts, outcome.batches, before, strict=False):
        assert waits == {"fetched": 2 if opens or batch < once else 1}


def test_groups_make_it_wait_no_more() -> None:
    outcome = decode(policy="d2cache", decoder="threshold:threshold=0.2", batch=3)
    assert max(len(groups) for groups in outcome.groups) > 1
    assert all(set(waits) == {"fetched"} for waits in outcome.waits)


@pytest.mark.parametrize("decoder", ["confidence", "wino"])
@pytest.mark.parametrize("policy", ["d2cache", "random"])
def test_what_is_not_asked_early_makes_it_wait_twice(policy: str, decoder: str) -> None:
    """A policy that does not say so (which draws on the host, besides), and any with a decoder that takes back."""
    if (policy, decoder) == ("d2cache", "confidence"):
        outcome = decode(policy=policy, decoder=decoder, plan_ahead=False)
    else:
        outcome = decode(policy=policy, decoder=decoder)
    drawn = 3 if policy == "random" else 0
    assert {step["fetched"] for step in outcome.waits[1:]} == {2 + drawn}


def test_a_layerwise_policy_makes_the_host_wait_once_a_layer() -> None:
    """For the rows that it chose; and once for those that are probed."""
    shape = NetworkShape(layers=4)
    outcome = decode(policy="dllm:kp=50,kr=50,rou=0.25", shape=shape)
    within = [step.total() for step, opens in zip(outcome.waits, outcome.block_starts, strict=True) if not opens]
    assert max(within) <= 1 + 1 + shape.layers


def test_a_run_is_fetched_in_a_few_pieces() -> None:
    """And not step by step."""
    outcome = decode()
    assert len(outcome.waits) == 16
    assert outcome.afterwards.total() < 16


@pytest.mark.parametrize("policy", ["dual", "d2cache", "dllm"])
def test_requests_and_drift_keep_to_the_device(policy: str) -> None:
    near, far = serve(policy=policy)
    assert far == near
    near, far = drift_of(policy=policy)
    for name, found in far.items():  # another kernel computes norms there
        torch.testing.assert_close(torch.tensor(found), torch.tensor(near[name]), equal_nan=True)
