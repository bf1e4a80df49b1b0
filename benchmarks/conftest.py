"""Options of the benchmarks: ``make bench`` takes the quick profile, which ends in minutes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch
from attrs import frozen

from benchmarks.networks import LLADA_8B, SMALL, Shape, TooLargeError, make_network, make_prompt, require_memory
from benchmarks.weights import WEIGHTS
from freshkv.models import LLaDAModelLM

POLICIES = ("none", "prefix", "dual", "dllm:kp=50,kr=7", "d2cache")
BLOCK = 32  #: positions


@frozen(kw_only=True)
class Size:
    """What is decoded, by what. Lengths in positions."""

    shape: Shape = SMALL
    prompt: int = 512
    response: int = 128
    batch: int = 1
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.shape.name}-{self.prompt}+{self.response}-batch{self.batch}-{self.dtype}"


_BOTH = ("float32", "bfloat16")
QUICK_STEPS = tuple(Size(dtype=dtype) for dtype in _BOTH)
FULL_STEPS = (
    *(Size(prompt=prompt, dtype=dtype) for prompt in (256, 512, 1024, 2048, 4096) for dtype in _BOTH),
    *(Size(response=response, dtype=dtype) for response in (256, 512, 1024) for dtype in _BOTH),
    *(Size(batch=batch, dtype=dtype) for batch in (2, 4, 8) for dtype in _BOTH),
    *(Size(shape=LLADA_8B, response=256, dtype=dtype) for dtype in _BOTH),
)
QUICK_RUNS = tuple(Size(prompt=256, response=64, dtype=dtype) for dtype in _BOTH)
FULL_RUNS = (
    *(Size(prompt=prompt, dtype=dtype) for prompt in (256, 1024, 4096) for dtype in _BOTH),
    *(Size(response=response, dtype=dtype) for response in (512, 1024) for dtype in _BOTH),
    *(Size(batch=batch, dtype=dtype) for batch in (4, 8) for dtype in _BOTH),
)
SIZES = {
    ("quick", "step_size"): QUICK_STEPS,
    ("full", "step_size"): FULL_STEPS,
    ("quick", "run_size"): QUICK_RUNS,
    ("full", "run_size"): FULL_RUNS,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--bench-profile``, ``--bench-threads`` and ``--bench-weights``."""
    group = parser.getgroup("freshkv benchmarks")
    group.addoption(
        "--bench-profile", choices=("quick", "full"), default="quick", help="full: all sizes, hours; quick: minutes"
    )
    group.addoption("--bench-threads", type=int, default=2, help="threads of matrix products")
    group.addoption("--bench-weights", choices=list(WEIGHTS), default="compiled", help="see benchmarks/weights.py")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every benchmark over the sizes of the profile."""
    profile = metafunc.config.getoption("--bench-profile")
    for name in ("step_size", "run_size"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, SIZES[profile, name], ids=str)


@pytest.fixture(autouse=True)
def _threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.config.getoption("--bench-threads"))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def weights(request: pytest.FixtureRequest) -> str:
    """How weights lie: a name of WEIGHTS."""
    name: str = request.config.getoption("--bench-weights")
    return name


@lru_cache(maxsize=1)
def _network(shape: Shape, dtype: str, weights: str) -> LLaDAModelLM:
    return make_network(shape, dtype, prepacked=WEIGHTS[weights])


def network_and_prompt(size: Size, weights: str) -> tuple[LLaDAModelLM, torch.Tensor]:
    """Random weights of the shape, and a prompt, long [batch, prompt]; skips where memory does not allow it."""
    try:
        require_memory(size.shape, size.dtype, size.batch * (size.prompt + size.response))
    except TooLargeError as reason:
        pytest.skip(str(reason))
    return _network(size.shape, size.dtype, weights), make_prompt(size.shape, size.prompt, size.batch)
