"""How the time of a step grows with the length of the canvas, at a fixed number of refreshed rows; and peak memory.

python -m benchmarks.scaling --output scaling.json
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table

import freshkv
from benchmarks.networks import DTYPES, SHAPES, make_network, make_prompt, require_memory
from benchmarks.weights import WEIGHTS, add_weights
from freshkv.core.kept_attention import AttentionOfPass, own_attention
from freshkv.core.memory import PeakMemory
from freshkv.core.rows import RowSet
from freshkv.models.prepacked import prepack

RESPONSE, BLOCK = 128, 32

#: of the C library of Linux: bytes at the end of the heap, and of a piece of memory, from which on the system has them
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


@frozen(kw_only=True)
class FixedRows(freshkv.CachePolicy):
    """Refreshes the active block and as many rows of the prompt as make ``rows``, spread evenly; with the rollout.

    What d2Cache does, but for the choice of rows, whose number then depends on the prompt.
    """

    name = "fixed-rows"
    needs = frozenset({"confidence", "attention_rollout"})

    rows: int = 48

    def select(self, view: freshkv.StepView) -> freshkv.Selection:
        """Everything first."""
        if view.step == 0:
            return freshkv.Selection(predict=view.everything)
        prompt = int(view.is_prompt[0].sum())
        refresh = view.nothing.clone()
        refresh[:, torch.linspace(0, prompt - 1, self.rows - view.block_length).long()] = True
        return freshkv.Selection(predict=view.in_block, refresh=refresh)


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequence", nargs="+", type=int, default=[512, 1024, 2048, 4096], help="positions")
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    add_weights(parser)
    parser.add_argument("--output", type=Path, default=Path("scaling.json"))
    arguments = parser.parse_args()
    cases = [(dtype, sequence) for dtype in arguments.dtype for sequence in arguments.sequence]
    measured = []
    for dtype, sequence in track(cases, transient=True):
        # a process of its own: what an earlier one has freed and the allocator kept would hide what this one takes
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            measured.append(process.submit(measure, arguments, dtype, sequence).result())
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    Console().print(as_table(measured))


@contextmanager
def lying_apart() -> Iterator[None]:
    """What is allocated within lies apart from the heap, and goes back to the system when it is freed.

    What plain weights leave behind would else be holes, which what a run takes fills here and there: that is a matter
    of how a model was loaded. Behind it the C library of Linux is as it gets by itself once much has been freed.
    """
    with suppress(AttributeError):  # another C library
        _tune(MMAP_THRESHOLD, 1 << 16)
    yield
    with suppress(AttributeError):
        _tune(MMAP_THRESHOLD, 1 << 25)
        _tune(TRIM_THRESHOLD, 1 << 26)
        ctypes.CDLL(None).malloc_trim(0)


def _tune(option: int, size: int) -> None:
    ctypes.CDLL(None).mallopt(option, size)


def measure(arguments: argparse.Namespace, dtype: str, sequence: int) -> dict[str, Any]:
    """The median step after the first, on both clocks, its attention alone, and the memory of the whole."""
    torch.set_num_threads(arguments.threads)
    shape, steps = SHAPES[arguments.shape], arguments.steps
    require_memory(shape, dtype, sequence)
    layout = WEIGHTS[arguments.weights]
    with lying_apart():
        network = make_network(shape, dtype)
        weights = sum(parameter.nbytes for parameter in network.parameters())
        if layout:
            prepack(network, layout)
        prompt = make_prompt(shape, sequence - RESPONSE)
        # libraries take some memory of their own when they are first used
        freshkv.generate(network, prompt[:, :8], policy=FixedRows(), gen_length=BLOCK, block_length=BLOCK)
    wall, processor, memory = [], [], PeakMemory(network.device)
    before = memory.bytes

    def on_step(record: freshkv.StepRecord) -> None:
        wall.append(time.perf_counter())
        processor.append(time.process_time())
        if len(wall) > steps:
            raise _EnoughError

    store_bytes = 2 * shape.layers * sequence * shape.width * DTYPES[dtype].itemsize
    with suppress(_EnoughError):
        freshkv.generate(network, prompt, policy=FixedRows(), gen_length=RESPONSE, block_length=BLOCK, on_step=on_step)
    peak = memory.bytes - before
    return {
        "shape": asdict(shape),
        "dtype": dtype,
        "sequence": sequence,
        "rows": FixedRows().rows,
        "wall": statistics.median(b - a for a, b in pairwise(wall)),
        "processor": statistics.median(b - a for a, b in pairwise(processor)),
        "attention": attention_seconds(network, sequence, dtype),
        "weight_bytes": weights,
        "cache_bytes": store_bytes,
        "peak_bytes_of_the_run": peak,
    }


class _EnoughError(Exception):
    """Enough steps were measured."""


@torch.inference_mode()
def attention_seconds(network: freshkv.Network, sequence: int, dtype: str) -> float:
    """Seconds of the attention of a step: that of the refreshed rows to all keys in every layer, with what they pay."""
    spec, count = network.network_spec, FixedRows().rows
    mask = torch.zeros(1, sequence, dtype=torch.bool)
    mask[:, torch.linspace(0, sequence - 1, count).long()] = True
    rows, numbers = RowSet.of(mask), DTYPES[dtype]
    cached = [torch.randn(2, spec.kv_heads, 1, sequence, spec.head_width).to(numbers) for _ in range(spec.layers)]
    queries = torch.randn(count, spec.heads, spec.head_width).to(numbers)
    attention = AttentionOfPass(own_attention(network), queries=False, paid=True)
    taken = []
    for _ in range(9):
        begun = time.perf_counter()
        attention.start()
        for keys, values in cached:
            attention.attend(queries, keys, values, rows, None)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def as_table(measured: list[dict[str, Any]]) -> Table:
    """One line a length."""
    table = Table(title="a step at a fixed number of refreshed rows")
    columns = ("dtype", "positions", "rows", "ms a step", "ms (processor)", "ms attention alone", "run's peak, MiB")
    for column in columns:
        table.add_column(column, justify="left" if column == "dtype" else "right")
    for entry in measured:
        table.add_row(
            entry["dtype"],
            str(entry["sequence"]),
            str(entry["rows"]),
            f"{1000 * entry['wall']:.1f}",
            f"{1000 * entry['processor']:.1f}",
            f"{1000 * entry['attention']:.1f}",
            f"{entry['peak_bytes_of_the_run'] / 2**20:.0f}",
        )
    return table


if __name__ == "__main__":
    main()
