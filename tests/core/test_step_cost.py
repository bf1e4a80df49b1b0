"""Operations of a step of each policy, by its definition: what it refreshes is what it costs."""

from __future__ import annotations

import pytest
import torch

import freshkv
from freshkv.core.cost import cost_of_step
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape

PROMPT, RESPONSE, BLOCK = 20, 16, 8
SEQ = PROMPT + RESPONSE
SHAPE = NetworkShape(layers=3, heads=2, kv_heads=2, head_width=8, vocabulary=40, mask_token_id=39)
WIDTH = 16
FEED_FORWARD = 2 * WIDTH


def costs(policy: str) -> list[int]:
    """Operations of each step."""
    network = tiny_network(SHAPE)
    prompt = torch.randint(0, 30, (1, PROMPT), generator=torch.Generator().manual_seed(5))
    run = freshkv.generate(network, prompt, policy=policy, gen_length=RESPONSE, block_length=BLOCK)
    return [cost_of_step(step, run.trace, network.network_spec).flops for step in run.trace]


def layer(rows: int) -> int:
    """Of one layer: projections, attention to the whole canvas, feed-forward."""
    return rows * (2 * 4 * WIDTH**2 + 4 * SEQ * WIDTH + 2 * 3 * WIDTH * FEED_FORWARD)


def head(positions: int) -> int:
    return 2 * positions * WIDTH * SHAPE.vocabulary


def masks_in_block(step: int) -> int:
    return BLOCK - step % BLOCK


def refreshed(policy: str, step: int) -> int:
    if policy == "none" or step % BLOCK == 0:
        return SEQ
    return BLOCK if policy == "dual" else RESPONSE - step // BLOCK * BLOCK


@pytest.mark.parametrize("policy", ["none", "prefix", "dual"])
def test_a_step_costs_its_rows_in_every_layer(policy):
    expected = [SHAPE.layers * layer(refreshed(policy, step)) + head(masks_in_block(step)) for step in range(RESPONSE)]
    assert costs(policy) == expected


def test_a_step_of_dllm_costs_its_first_layer_probes_and_a_share_of_the_response():
    probes = 2 * RESPONSE * WIDTH * WIDTH
    chosen = RESPONSE // 4
    for step, cost in enumerate(costs("dllm:kp=5,kr=2,rou=0.25")):
        rows = (PROMPT if step % 5 == 0 else 0) + (RESPONSE if step % 2 == 0 else chosen)
        probed = 0 if step % 2 == 0 else SHAPE.layers * probes
        assert cost == layer(SEQ) + (SHAPE.layers - 1) * layer(rows) + probed + head(masks_in_block(step))


def test_a_step_of_d2cache_costs_its_rows_and_weighs_what_they_pay():
    network = tiny_network(SHAPE)
    prompt = torch.randint(0, 30, (1, PROMPT), generator=torch.Generator().manual_seed(5))
    run = freshkv.generate(network, prompt, policy="d2cache:current_k=4", gen_length=RESPONSE, block_length=BLOCK)
    for number, step in enumerate(run.trace):
        rows, predicted = int(step.refreshed.sum()), int(step.predicted.sum())
        assert rows == SEQ if number == 0 else rows > predicted  # at least one important row besides
        rollout = 2 * rows * SEQ
        expected = SHAPE.layers * (layer(rows) + rollout) + head(predicted)
        assert cost_of_step(step, run.trace, network.network_spec).flops == expected
