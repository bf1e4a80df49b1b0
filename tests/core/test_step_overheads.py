"""Memory that a step allocates besides matrix products. (For what the host waits: test_far_device.py.)"""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import freshkv
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape

RESPONSE, BLOCK = 16, 8
SHAPE = NetworkShape(layers=4, heads=4, kv_heads=4, head_width=32, vocabulary=50, mask_token_id=49, double=False)
POLICIES = ["none", "prefix", "dual", "dllm:kp=50,kr=50,rou=0.25", "d2cache:current_k=8"]


class Allocations(TorchDispatchMode):
    """Bytes of fresh storage in what operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {_storage(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and _storage(tensor) not in known:
                self.bytes += tensor.untyped_storage().nbytes()
        return result


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def measured(mode_type, read, policy: str, prompt: int, batch: int = 1) -> list:
    """What a mode counted in each step of a run."""
    tokens = torch.randint(0, 40, (batch, prompt), generator=torch.Generator().manual_seed(0))
    found, before = [], None
    mode, network = mode_type(), tiny_network(SHAPE)

    def on_step(record: freshkv.StepRecord) -> None:
        nonlocal before
        now = read(mode)
        found.append(now if before is None else now - before)
        before = now

    with mode:
        freshkv.generate(network, tokens, policy=policy, gen_length=RESPONSE, block_length=BLOCK, on_step=on_step)
    return found


def bytes_by_step(policy: str, prompt: int) -> list[int]:
    return measured(Allocations, lambda mode: mode.bytes, policy, prompt)


@pytest.mark.parametrize("policy", ["prefix", "dual"])
def test_no_step_copies_the_cache(policy):
    """What grows with the prompt is bookkeeping: for a position, a quarter of its keys and values at most."""
    cached_row = 2 * SHAPE.layers * SHAPE.heads * SHAPE.head_width * 4
    assert growth_with_prompt(policy) < cached_row / 4


def test_a_signal_of_attention_allocates_a_few_times_the_probabilities_of_the_refreshed_rows():
    """At a fixed number of rows: eight likely ones, what was committed, and the most important one."""
    rows, temporaries = 8 + 1 + 1, 5
    probabilities = SHAPE.layers * SHAPE.heads * rows * 4  # bytes for each key
    cached_row = 2 * SHAPE.layers * SHAPE.heads * SHAPE.head_width * 4
    assert growth_with_prompt("d2cache:current_k=8,rollout_p=0") < temporaries * probabilities + cached_row / 4


def test_the_carried_path_allocates_half_of_what_refreshing_everything_does():
    """Its first layer refreshes everything, and all hidden states flow."""
    assert growth_with_prompt("dllm:kp=50,kr=50,rou=0.25") < growth_with_prompt("none") / 2


def growth_with_prompt(policy: str) -> float:
    """Bytes for each position of the prompt, in the step within a block where it is most."""
    short, long = bytes_by_step(policy, 32), bytes_by_step(policy, 96)
    later = [step for step in range(1, RESPONSE) if step % BLOCK != 0]
    return max((long[step] - short[step]) / 64 for step in later)


@pytest.mark.parametrize("policy", ["none", "prefix", "dual"])
def test_steps_of_a_block_allocate_less_and_less(policy):
    """The same rows, fewer masks: nothing is kept from step to step that would have to be made again larger."""
    steps = bytes_by_step(policy, 32)
    for first in range(0, RESPONSE, BLOCK):
        block = steps[first + 1 : first + BLOCK]
        assert block == sorted(block, reverse=True)


@pytest.mark.parametrize("policy", POLICIES)
def test_logits_are_allocated_for_predicted_positions_only(policy):
    """The first step has rows for everything and predicts a block (d2cache: the response)."""
    predicted = RESPONSE if "d2cache" in policy else BLOCK
    wide = NetworkShape(**{**vars_of(SHAPE), "vocabulary": 4000, "mask_token_id": 3999})
    narrow = NetworkShape(**{**vars_of(SHAPE), "vocabulary": 2000, "mask_token_id": 1999})
    growth = first_step_bytes(policy, wide) - first_step_bytes(policy, narrow)
    tensors = growth / (2000 * 4 * predicted)
    assert tensors <= 6  # logits, and what the softmax of its confidence needs


def vars_of(shape: NetworkShape) -> dict:
    names = ("layers", "heads", "kv_heads", "head_width", "vocabulary", "mask_token_id", "double")
    return {name: getattr(shape, name) for name in names}


def first_step_bytes(policy: str, shape: NetworkShape) -> int:
    tokens = torch.randint(0, 40, (1, 24), generator=torch.Generator().manual_seed(0))
    seen, network = [], tiny_network(shape)
    with Allocations() as mode:
        freshkv.generate(
            network,
            tokens,
            policy=policy,
            gen_length=RESPONSE,
            block_length=BLOCK,
            on_step=lambda record: seen.append(mode.bytes),
        )
    return seen[0]
