"""Steps on a GPU against the time that reading the weights takes, with and without CUDA graphs; and larger batches.

python -m benchmarks.gpu --output gpu.json

Batch 1 is bound by memory: no step can be shorter than one reading of all weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from attrs import asdict, frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table

import freshkv
from benchmarks.networks import DTYPES, SHAPES, make_network, make_prompt

POLICIES = ("none", "prefix", "dual", "d2cache", "dllm:kp=50,kr=7")
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@frozen(kw_only=True)
class Measured:
    """Whole runs of one policy."""

    policy: str
    batch: int
    cuda_graphs: bool
    step_seconds: float  #: median over the steps of a run, recordings left out
    tokens_per_second: float  #: of all sequences, a run that was warmed up
    peak_bytes: int
    weight_seconds: float  #: one reading of the weights at the measured bandwidth

    @property
    def over_weights(self) -> float:
        """How many readings of the weights a step takes."""
        return self.step_seconds / self.weight_seconds


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", nargs="+", default=list(POLICIES))
    parser.add_argument("--batch", nargs="+", type=int, default=list(BATCHES), help="sequences")
    parser.add_argument("--shape", default="llada-8b", choices=list(SHAPES))
    parser.add_argument("--dtype", default="bfloat16", choices=list(DTYPES))
    parser.add_argument("--prompt", type=int, default=512, help="positions")
    parser.add_argument("--response", type=int, default=256, help="positions")
    parser.add_argument("--block", type=int, default=32, help="positions")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    arguments = parser.parse_args()
    if torch.device(arguments.device).type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("This benchmark needs a CUDA device, and torch finds none. To try the program: --device cpu.")
    network = make_network(SHAPES[arguments.shape], arguments.dtype, device=arguments.device)
    weights = sum(parameter.nbytes for parameter in network.parameters()) / bandwidth(arguments.device)
    graphs = (False, True) if network.device.type == "cuda" else (False,)
    cases = [(p, b, g) for b in arguments.batch for p in arguments.policy for g in graphs]
    found: list[Measured] = []
    for policy, batch, cuda_graphs in track(cases, transient=True):
        try:
            found.append(measure(network, policy, batch, weights, arguments, cuda_graphs=cuda_graphs))
        except torch.cuda.OutOfMemoryError:
            Console().print(f"{policy}, batch {batch}: out of memory", markup=False)
            torch.cuda.empty_cache()
        write(found, arguments)
    Console().print(as_table(found))


def measure(
    network: freshkv.Network,
    policy: str,
    batch: int,
    weight_seconds: float,
    arguments: argparse.Namespace,
    *,
    cuda_graphs: bool,
) -> Measured:
    """Two runs, the second of them timed."""
    prompt = make_prompt(SHAPES[arguments.shape], arguments.prompt, batch)
    times: list[float] = []

    def on_step(record: freshkv.StepRecord) -> None:
        synchronise(network.device)
        times.append(time.perf_counter())

    options = {"policy": policy, "gen_length": arguments.response, "block_length": arguments.block}
    freshkv.generate(network, prompt, on_step=on_step, cuda_graphs=cuda_graphs, **options)
    steps = [after - before for before, after in itertools.pairwise(times)]
    run = freshkv.generate(network, prompt, cuda_graphs=cuda_graphs, **options)
    return Measured(
        policy=policy,
        batch=batch,
        cuda_graphs=cuda_graphs,
        step_seconds=statistics.median(steps),
        tokens_per_second=run.stats.tokens_per_second,
        peak_bytes=run.stats.peak_bytes,
        weight_seconds=weight_seconds,
    )


def bandwidth(device: str, mebibytes: int = 1024, times: int = 10) -> float:
    """Bytes a second that are read by a sum over more memory than caches hold."""
    memory = torch.ones(mebibytes * 2**18, device=device)
    return memory.nbytes / min(seconds_of(memory.sum, memory.device) for _ in range(times))


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Until the device is done."""
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def write(found: Sequence[Measured], arguments: argparse.Namespace) -> None:
    """What is measured so far."""
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    setting = {name: value for name, value in vars(arguments).items() if name not in {"output", "policy", "batch"}}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    measured = {"device": name, "torch": torch.__version__, "setting": setting, "runs": [asdict(run) for run in found]}
    arguments.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


def as_table(found: Sequence[Measured]) -> Table:
    """A line a run."""
    table = Table(title="steps on a GPU")
    for column in ("batch", "policy", "graphs", "ms a step", "x weights", "tokens/s", "peak GiB"):
        table.add_column(column, justify="left" if column in {"policy", "graphs"} else "right")
    for run in found:
        table.add_row(
            str(run.batch),
            run.policy,
            "yes" if run.cuda_graphs else "no",
            f"{1000 * run.step_seconds:.2f}",
            f"{run.over_weights:.2f}",
            f"{run.tokens_per_second:.1f}",
            f"{run.peak_bytes / 2**30:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
