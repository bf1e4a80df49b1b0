"""Decoding on the host and on a device that is none, beside each other."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from attrs import frozen
from torch import Tensor

from freshkv.compare.drift import measure_drift
from freshkv.compare.drift_record import TENSORS
from freshkv.core.canvas import Canvas
from freshkv.core.engine import Engine
from freshkv.core.generate import run_canvas
from freshkv.core.generate_many import generate_many
from freshkv.core.graphs import Recording, Work
from freshkv.core.inspect import Progress
from freshkv.core.loop import DenoisingLoop, RunOptions
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.request import Request
from freshkv.core.sampling import Sampling
from freshkv.testing import NetworkShape, tiny_network
from freshkv.testing.far_device import NAME, FarDevice, far_device

#: for what hands no options on to its runs
WITHOUT_INFERENCE_MODE = patch.object(Engine, "_inference", lambda engine: nullcontext())


def run_again(device: FarDevice, work: Work) -> Recording:
    """A pass that is replayed by running it again, during which nothing may wait."""

    def run() -> tuple[Tensor, ...]:
        device.capturing = True
        try:
            return work()
        finally:
            device.capturing = False

    outputs = run()

    def replay() -> None:
        for output, again in zip(outputs, run(), strict=True):
            output.copy_(again)

    return Recording(replay, outputs)


@frozen
class Outcome:
    """The same decoding on both devices."""

    near: list[list[int]]
    far: list[list[int]]
    waits: list[Counter[str]]  #: for what the host waited in each step
    block_starts: list[bool]  #: whether any sequence opened a block with it
    batches: list[int]  #: sequences that took part in it
    groups: list[list[tuple[int, ...]]]  #: of sequences that stood at the same point
    afterwards: Counter[str]  #: and behind the last one, until the run was there


def decode(
    *,
    shape: NetworkShape | None = None,
    policy: str = "dual",
    decoder: str = "confidence",
    batch: int = 1,
    eos_token_id: int | None = None,
    record: bool = False,
    plan_ahead: bool | None = None,
    **sampling: float,
) -> Outcome:
    """Decode ``batch`` prompts, the second one padded, with a network of its own; ``record`` its passes."""
    network = deepcopy(tiny_network(NetworkShape() if shape is None else shape))
    prompts = torch.randint(14, (batch, 9), generator=torch.Generator().manual_seed(3))
    padding = torch.ones_like(prompts)
    padding[1:2, :4] = 0
    options = {
        "policy": resolve_policy(policy),
        "decoder": resolve_decoder(decoder),
        "sampling": Sampling(**sampling),
        "seeds": tuple(range(batch)),
    }

    def run(**more: Any) -> list[list[int]]:
        canvas = Canvas.create(prompts, padding, 16, 8, network.network_spec, network.device, eos_token_id)
        return run_canvas(network, canvas, RunOptions(**options, **more)).sequences.tolist()

    near = run()
    with far_device() as device:
        network.to(NAME)
        waits: list[Counter[str]] = []
        block_starts: list[bool] = []
        batches: list[int] = []
        groups: list[list[tuple[int, ...]]] = []
        step = DenoisingLoop.step

        def watched(loop: DenoisingLoop) -> Progress:
            device.waits.clear()
            block_starts.append(0 in loop.state.step_in_block)
            batches.append(loop.state.batch)
            groups.append(loop.state.groups())
            progress = step(loop)
            waits.append(device.waits.copy())
            device.waits.clear()
            return progress

        with patch.object(DenoisingLoop, "step", watched):
            recorded = partial(run_again, device) if record else None
            far = run(inference_mode=False, plan_ahead=plan_ahead, record=recorded)
        device.waits.subtract({"tolist": 1})  # of the sequences, just now
        return Outcome(near, far, waits, block_starts, batches, groups, +device.waits)


def serve(*, policy: str) -> tuple[list[list[int]], list[list[int]]]:
    """Requests of several lengths through two slots, on the host and on the device."""
    network = deepcopy(tiny_network(NetworkShape()))
    requests = [Request([1] * length, gen_length=8, block_length=4) for length in (3, 7, 5, 9)]

    def served() -> list[list[int]]:
        results = sorted(generate_many(network, requests, policy=policy, batch_size=2), key=lambda each: each.index)
        return [result.sequence.tolist() for result in results]

    near = served()
    with far_device(), WITHOUT_INFERENCE_MODE:
        network.to(NAME)
        return near, served()


def drift_of(*, policy: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``measure_drift`` finds on the host and on the device, by name."""
    network = deepcopy(tiny_network(NetworkShape()))
    prompt = torch.randint(14, (1, 9), generator=torch.Generator().manual_seed(3))

    def measured() -> dict[str, Any]:
        drift = measure_drift(network, prompt, policy=policy, gen_length=8, block_length=4)
        return {name: getattr(drift, name).tolist() for name in TENSORS}

    near = measured()
    with far_device(), WITHOUT_INFERENCE_MODE:
        network.to(NAME)
        return near, measured()
