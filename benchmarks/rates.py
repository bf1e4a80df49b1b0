"""What the machine reaches in matrix products: at large squares, and at the products that a step is made of."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from attrs import frozen

from benchmarks.networks import DTYPES, Shape

#: of a square product; large enough for the full rate, small enough to be quick
SQUARE = 1536


@frozen
class Rate:
    """Operations a second (a multiplication and an addition are two), by either clock."""

    wall: float
    processor: float


def rate_of(work: Callable[[], object], flops: int, least_seconds: float = 0.2, least_times: int = 7) -> Rate:
    """The median rate of ``work``, which takes ``flops`` operations; the first two times warm up."""
    work()
    work()
    wall, processor = [], []
    while sum(wall) < least_seconds or len(wall) < least_times:
        clock, spent = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - clock)
        processor.append(time.process_time() - spent)
    middle = len(wall) // 2
    return Rate(flops / sorted(wall)[middle], flops / max(sorted(processor)[middle], 1e-9))


def product_rate(rows: int, inner: int, outer: int, dtype: str, weights: int = 1) -> Rate:
    """Of [rows, inner] with [inner, outer], ``weights`` different ones in turn: caches hold no more than in a step."""
    left = torch.randn(rows, inner).to(DTYPES[dtype])
    stored = [torch.randn(outer, inner).to(DTYPES[dtype]) for _ in range(weights)]

    def work() -> None:
        for weight in stored:
            torch.nn.functional.linear(left, weight)

    return rate_of(work, 2 * rows * inner * outer * weights)


def square_rate(dtype: str) -> Rate:
    """Of a large square product: the most that this machine reaches."""
    return product_rate(SQUARE, SQUARE, SQUARE, dtype)


def step_rates(shape: Shape, rows: int, predicted: int, dtype: str) -> dict[str, Rate]:
    """Of the products in a step with ``rows`` refreshed, ``predicted`` of them with logits; every layer's weights."""
    return {
        "projections": product_rate(rows, shape.width, shape.width, dtype, 4 * shape.layers),
        "feed_forward": product_rate(rows, shape.width, shape.feed_forward, dtype, 3 * shape.layers),
        "head": product_rate(max(predicted, 1), shape.width, shape.vocabulary, dtype),
    }


def bandwidth(dtype: str = "float32", mebibytes: int = 256) -> float:
    """Bytes a second that are read by a sum over more memory than caches hold."""
    memory = torch.ones(mebibytes * 2**20 // DTYPES[dtype].itemsize, dtype=DTYPES[dtype])
    return rate_of(memory.sum, memory.nbytes).wall
