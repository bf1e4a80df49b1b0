"""Time of a denoising step for each policy: ``make bench``. The ratio to ``none`` is in the benchmark's extra info."""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

import freshkv
from benchmarks.conftest import BLOCK, RESPONSE
from freshkv.models import LLaDAModelLM

POLICIES = ["none", "prefix", "dual", "dllm:kp=50,kr=7", "d2cache"]


@pytest.mark.parametrize("policy", POLICIES)
def test_whole_run(benchmark: BenchmarkFixture, network: LLaDAModelLM, prompt: torch.Tensor, policy: str) -> None:
    def run() -> freshkv.Run:
        return freshkv.generate(network, prompt, policy=policy, gen_length=RESPONSE, block_length=BLOCK)

    result = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    forwards = result.stats.forwards
    benchmark.extra_info["milliseconds_per_step"] = 1000 * benchmark.stats.stats.median / forwards
    benchmark.extra_info["rows_per_step"] = result.stats.rows_computed / forwards
    benchmark.extra_info["peak_bytes"] = result.stats.peak_bytes
