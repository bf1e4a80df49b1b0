"""The cost of a run: operations as torch counts them, bytes against their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import freshkv
from freshkv.core.cost import Cost, cost_of_step, cost_of_trace, total_cost
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape
from tests.core.support import POLICIES, examples, policies_of

PROMPT, RESPONSE, BLOCK = 7, 12, 4
SHAPE = NetworkShape(layers=3, heads=4, kv_heads=2, vocabulary=40, mask_token_id=39)


def decode(policy, decoder="confidence", batch: int = 1, shape: NetworkShape = SHAPE) -> freshkv.Run:
    prompt = torch.randint(0, 30, (batch, PROMPT), generator=torch.Generator().manual_seed(1))
    return freshkv.generate(
        tiny_network(shape), prompt, policy=policy, decoder=decoder, gen_length=RESPONSE, block_length=BLOCK
    )


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("name", sorted(set(POLICIES) - {"oracle"}))
@examples(8)
@given(data=st.data())
def test_operations_are_those_that_torch_counts(name, family, data):
    """One sequence, so that nothing is repeated to make a batch rectangular; the oracle's truth is not its cost."""
    shape = NetworkShape(family=family, layers=3, heads=4, kv_heads=2, vocabulary=40, mask_token_id=39)
    policy = data.draw(policies_of(name))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run = decode(policy, shape=shape)
    counted = counter.get_flop_counts()["Global"]
    # a convolution is the policy's own work (certainty density); networks have none
    done = sum(number for name, number in counted.items() if name is not torch.ops.aten.convolution)
    hides = any(int(step.keys.min()) < PROMPT + RESPONSE for step in run.trace)
    # a few hidden keys are masked rather than left out, because copying the others would take longer
    assert run.stats.cost.flops <= done if hides else run.stats.cost.flops == done


def test_operations_of_a_pass_without_a_cache():
    run, seq = decode("none"), PROMPT + RESPONSE
    inner, kv, width = 4 * 8, 2 * 8, 4 * 8
    cost = cost_of_step(run.trace[0], run.trace, tiny_network(SHAPE).network_spec)
    assert cost.projections == 3 * seq * 2 * width * (2 * inner + 2 * kv)
    assert cost.attention == 3 * seq * seq * 4 * inner
    assert cost.feed_forward == 3 * seq * 2 * 3 * width * 2 * width
    assert cost.head == BLOCK * 2 * width * 40
    assert cost.signals == 0


def test_bytes_of_passes_with_and_without_a_cache():
    seq, width, kv, element = PROMPT + RESPONSE, 4 * 8, 2 * 8, 8
    layer = width * (2 * width + 2 * kv) + 3 * width * 2 * width
    weights = element * (3 * layer + width * 40)
    run = decode("dual")
    spec = tiny_network(SHAPE).network_spec
    full, narrow = (cost_of_step(run.trace[step], run.trace, spec) for step in (0, 1))
    assert full.bytes_written == element * 3 * 2 * kv * seq
    assert narrow.bytes_written == element * 3 * 2 * kv * BLOCK
    assert full.bytes_read == narrow.bytes_read == weights + element * 3 * 2 * kv * seq
    carried = decode("dllm:kp=50,kr=50,rou=0")
    outputs = element * 3 * width * seq
    # layer 0 refreshes everything, the layers above nothing
    step = cost_of_step(carried.trace[1], carried.trace, spec)
    assert step.bytes_read == element * (layer + width * 40) + element * 2 * kv * seq + outputs
    assert step.bytes_written == element * (2 * kv + width) * seq


def test_cost_of_a_batch_is_that_of_its_sequences():
    """All but the weights, which a batch reads once."""
    shape = SHAPE
    prompt = torch.randint(0, 30, (3, PROMPT), generator=torch.Generator().manual_seed(1))
    options = {"policy": "d2cache:current_k=4", "gen_length": RESPONSE, "block_length": BLOCK}
    network = tiny_network(shape)
    together = freshkv.generate(network, prompt, **options).stats.cost
    alone = total_cost(freshkv.generate(network, row[None], **options).stats.cost for row in prompt)
    assert together.flops == alone.flops
    assert together.bytes_written == alone.bytes_written
    assert together.bytes_read < alone.bytes_read


def test_nobody_pays_for_padded_keys():
    network = tiny_network(SHAPE)
    prompt = torch.randint(0, 30, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    padded = torch.cat((torch.zeros(1, 2, dtype=torch.long), prompt), dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, :2] = False
    options = {"policy": "none", "gen_length": RESPONSE, "block_length": BLOCK}
    plain = freshkv.generate(network, prompt, **options).stats.cost
    behind = freshkv.generate(network, padded, mask, **options).stats.cost
    # nobody attends to padding, though its rows are computed
    assert behind.attention > plain.attention
    assert behind.attention == plain.attention * (PROMPT + RESPONSE + 2) // (PROMPT + RESPONSE)


def test_shadow_rows_are_counted():
    run = decode("none", decoder="wino:wide_in=0.3")
    spec = tiny_network(SHAPE).network_spec
    step = next(step for step in run.trace if step.shadow_rows > 0)
    seq, inner, width = PROMPT + RESPONSE, 4 * 8, 4 * 8
    rows, shadow = seq, step.shadow_rows
    cost = cost_of_step(step, run.trace, spec)
    assert cost.projections == 3 * (rows + shadow) * 2 * width * (2 * inner + 2 * 2 * 8)
    # a shadow row sees the canvas but for its own key, and its fellows with itself
    assert cost.attention == 3 * (rows * seq + shadow * (seq - 1 + shadow)) * 4 * inner
    assert cost.head == (int(step.predicted.sum()) + shadow) * 2 * width * 40


def test_costs_add_up():
    run = decode("dllm")
    spec = tiny_network(SHAPE).network_spec
    assert total_cost(cost_of_step(step, run.trace, spec) for step in run.trace) == cost_of_trace(run.trace, spec)
    assert total_cost([]) == Cost()
    assert run.stats.cost.bytes_moved == run.stats.cost.bytes_read + run.stats.cost.bytes_written


def test_cost_survives_saving(tmp_path):
    run = decode("dllm", decoder="wino")
    run.trace.save(tmp_path / "run.trace")
    loaded = freshkv.Trace.load(tmp_path / "run.trace")
    assert cost_of_trace(loaded, tiny_network(SHAPE).network_spec) == run.stats.cost
