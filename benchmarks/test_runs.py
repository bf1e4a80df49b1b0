"""Time of whole runs for each policy, with rows, operations and memory: ``make bench``."""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import freshkv
from benchmarks.conftest import BLOCK, POLICIES, Size, network_and_prompt


@pytest.mark.parametrize("policy", POLICIES)
def test_run(benchmark: BenchmarkFixture, run_size: Size, policy: str, weights: str) -> None:
    network, prompt = network_and_prompt(run_size, weights)

    def run() -> freshkv.Run:
        return freshkv.generate(network, prompt, policy=policy, gen_length=run_size.response, block_length=BLOCK)

    stats = benchmark.pedantic(run, rounds=1, warmup_rounds=0).stats
    benchmark.extra_info |= {
        "policy": policy,
        "weights": weights,
        "size": str(run_size),
        "milliseconds_per_step": 1000 * stats.seconds / stats.forwards,
        "tokens_per_second": stats.tokens_per_second,
        "rows_per_step": stats.rows_computed / stats.forwards,
        "flops": stats.cost.flops,
        "cache_bytes": stats.cache_bytes,
        "peak_bytes": stats.peak_bytes,
    }
