"""Time of a step that neither opens a run nor a block, for each policy: ``make bench``."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.conftest import BLOCK, POLICIES, Size, network_and_prompt
from freshkv.core.canvas import Canvas
from freshkv.core.cost import cost_of_step
from freshkv.core.loop import DenoisingLoop, RunOptions
from freshkv.core.memory import PeakMemory
from freshkv.core.policy import LayerwisePolicy
from freshkv.core.recorder import Recorder
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.core.state import RunState

STEPS = 10  #: of one block, which has 32


@pytest.mark.parametrize("policy", POLICIES)
def test_step(benchmark: BenchmarkFixture, step_size: Size, policy: str, weights: str) -> None:
    network, prompt = network_and_prompt(step_size, weights)
    spec = network.network_spec
    canvas = Canvas.create(prompt, None, step_size.response, BLOCK, spec, network.device, None)
    options = RunOptions(
        policy=resolve_policy(policy),
        decoder=resolve_decoder("confidence"),
        sampling=Sampling(),
        seeds=(0,) * step_size.batch,
    )
    memory = PeakMemory(network.device)
    loop = DenoisingLoop(network, RunState.start(canvas), options, Recorder(canvas))
    loop.step()
    loop.step()
    benchmark.pedantic(loop.step, rounds=STEPS, warmup_rounds=1)
    facts = {
        "carried": isinstance(options.policy, LayerwisePolicy),
        "signals": sorted(options.policy.needs),
        "dtype": step_size.dtype,
    }
    trace = loop.recorder.trace(facts)
    cost = cost_of_step(trace[len(trace) - 1], trace, spec)
    benchmark.extra_info |= {
        "policy": policy,
        "weights": weights,
        "size": str(step_size),
        "rows": sum(trace[len(trace) - 1].rows_by_layer) / spec.layers,
        "flops": cost.flops,
        "bytes_moved": cost.bytes_moved,
        "cache_bytes": loop.engine.store.bytes,
        "peak_bytes": memory.bytes,
    }
