"""How close a step comes to what the machine can do.

Its time against that of its operations at the matrix rate, and its speed-up over `none` against the ideal one.

python -m benchmarks.limits --output limits.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import asdict
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import freshkv
from benchmarks.networks import DTYPES, SHAPES, make_network, make_prompt, require_memory
from benchmarks.peers.gate import CutShortError, Gate, StepTime
from benchmarks.peers.methods import METHODS, Setting
from benchmarks.peers.statistics import mean_step, samples_by_kind
from benchmarks.rates import square_rate, step_rates
from benchmarks.weights import WEIGHTS, add_weights
from freshkv.core.cost import Cost, cost_of_step
from freshkv.core.memory import PeakMemory

CLOCKS = ("wall", "processor")


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--prompt", type=int, default=512, help="positions")
    parser.add_argument("--response", type=int, default=128, help="positions")
    parser.add_argument("--block", type=int, default=32, help="positions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--least", type=int, default=None, help="cut runs short once every kind was seen so often")
    add_weights(parser)
    parser.add_argument("--output", type=Path, default=Path("limits.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured = []
    with Progress(transient=True) as progress:
        task = progress.add_task("runs", total=len(arguments.dtype) * len(arguments.method))
        for dtype in arguments.dtype:
            measured.append(measure(arguments, dtype, lambda: progress.advance(task)))
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            arguments.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    for clock in CLOCKS:
        Console().print(as_table(measured, clock))


def measure(arguments: argparse.Namespace, dtype: str, advance: Any) -> dict[str, Any]:
    """All methods in one dtype, and the rates of the machine before and after."""
    shape = SHAPES[arguments.shape]
    setting = Setting(
        prompt=arguments.prompt,
        response=arguments.response,
        block=arguments.block,
        dtype=dtype,
        threads=arguments.threads,
    )
    require_memory(shape, dtype, setting.prompt + setting.response)
    network = make_network(shape, dtype, prepacked=WEIGHTS[arguments.weights])
    prompt = make_prompt(shape, setting.prompt)
    squares, methods = [square_rate(dtype)], {}
    for name in arguments.method:
        methods[name] = method_figures(network, prompt, name, setting, arguments.least)
        squares.append(square_rate(dtype))
        advance()
    for figures in methods.values():
        rows, predicted = figures["rows"], figures["predicted"]
        figures["rates"] = {part: asdict(rate) for part, rate in step_rates(shape, rows, predicted, dtype).items()}
    square = {clock: statistics.median(getattr(rate, clock) for rate in squares) for clock in CLOCKS}
    return {
        "setting": asdict(setting),
        "weights": arguments.weights,
        "shape": asdict(shape),
        "square_rate": square,
        "methods": methods,
    }


def method_figures(
    network: freshkv.Network, prompt: torch.Tensor, name: str, setting: Setting, least: int | None
) -> dict[str, Any]:
    """Seconds and operations of a step of a whole run, memory, and the typical step's rows."""
    method = METHODS[name]
    kinds = method.kinds(setting)
    options = {"policy": method.spec(setting), "gen_length": setting.response, "block_length": setting.block}
    times: list[StepTime] = []
    gate = Gate(setting.steps, setting.steps if least is None else method.enough(setting, least), times.extend)
    records: list[freshkv.StepRecord] = []

    def on_step(record: freshkv.StepRecord) -> None:
        records.append(record)
        gate.step_begins()

    memory = PeakMemory(network.device)
    gate.step_begins()
    try:
        freshkv.generate(network, prompt, on_step=on_step, **options)
        gate.run_ends()
    except CutShortError:
        pass
    costs = costs_by_kind(records, kinds, setting, network, name)
    figures: dict[str, Any] = {
        "policy": method.spec(setting),
        "rows": int(statistics.median(sum(step.rows_by_layer) / len(step.rows_by_layer) for step in records[1:])),
        "predicted": int(statistics.median(int(step.predicted.sum()) for step in records[1:])),
        "flops": sum(costs[kind].flops for kind in kinds) / len(kinds),
        "peak_bytes": memory.bytes,
    }
    for clock in CLOCKS:
        samples = samples_by_kind([[getattr(time, clock) for time in times]], kinds)
        figures[clock] = mean_step(samples, kinds)
    return figures


def costs_by_kind(
    records: Sequence[freshkv.StepRecord], kinds: Sequence[str], setting: Setting, network: freshkv.Network, name: str
) -> dict[str, Cost]:
    """The median cost of each kind of step, by operations."""
    method = METHODS[name]
    policy = freshkv.policies()[method.name]
    facts = {
        "carried": issubclass(policy, freshkv.LayerwisePolicy),
        "signals": sorted(policy.needs),
        "dtype": setting.dtype,
    }
    trace = freshkv.Trace(tuple(records), setting.prompt, network.network_spec.mask_token_id, facts)
    found: dict[str, list[Cost]] = {}
    for step, kind in zip(records, kinds, strict=False):
        found.setdefault(kind, []).append(cost_of_step(step, trace, network.network_spec))
    return {kind: sorted(costs, key=lambda cost: cost.flops)[len(costs) // 2] for kind, costs in found.items()}


def as_table(measured: Sequence[dict[str, Any]], clock: str) -> Table:
    """Per method: milliseconds, operations, time over time at the matrix rate, speed-up and share of the ideal one."""
    table = Table(title=f"limits, {clock} clock")
    for column in ("dtype", "method", "ms a step", "GFLOP", "x square rate", "x own products", "speed-up", "of ideal"):
        table.add_column(column, justify="left" if column in {"dtype", "method"} else "right")
    for entry in measured:
        for name, line in lines(entry, clock).items():
            table.add_row(entry["setting"]["dtype"], name, *line)
    return table


def lines(entry: dict[str, Any], clock: str) -> dict[str, list[str]]:
    """The cells of the table, by method."""
    found = {}
    base = entry["methods"].get("none")
    for name, figures in entry["methods"].items():
        seconds, flops = figures[clock], figures["flops"]
        products = [rate[clock] for part, rate in figures["rates"].items() if part != "head"]
        speed_up = None if base is None else base[clock] / seconds
        ideal = None if base is None else base["flops"] / flops
        found[name] = [
            f"{1000 * seconds:.1f}",
            f"{flops / 1e9:.2f}",
            f"{seconds * entry['square_rate'][clock] / flops:.2f}",
            f"{seconds * statistics.mean(products) / flops:.2f}",
            "" if speed_up is None else f"{speed_up:.2f}",
            "" if speed_up is None or ideal is None else f"{speed_up / ideal:.0%}",
        ]
    return found


if __name__ == "__main__":
    main()
