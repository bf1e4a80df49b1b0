"""python -m benchmarks.peers --repository d2Cache=PATH --repository Fast-dLLM=PATH --output peers.json

Runs published implementations and ours in turns, with the same weights and prompt, one token a step, and writes the
time of a step of each with ratios and intervals. Repositories are given by path; nothing of them is copied.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from attrs import asdict
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.networks import DTYPES, SHAPES, make_network, make_prompt, require_memory
from benchmarks.peers.adapters import IMPLEMENTS
from benchmarks.peers.methods import METHODS, Setting
from benchmarks.peers.rounds import Contestant, PeerError, Worker, take_turns
from benchmarks.peers.statistics import ratio_interval, samples_by_kind, step_interval

OURS = "freshkv"  # what the others are compared with: our own products
SLOWER = ("freshkv, prepacked", "freshkv, plain")
CLOCKS = ("wall", "processor")


def main() -> None:
    """Parse, measure, write, show."""
    arguments = _parser().parse_args()
    repositories = dict(item.split("=", 1) for item in arguments.repository)
    unknown = repositories.keys() - IMPLEMENTS.keys()
    if unknown:
        raise SystemExit(f"--repository {sorted(unknown)[0]}: expected one of {', '.join(sorted(IMPLEMENTS))}.")
    for name, path in repositories.items():
        if not Path(path).is_dir():
            raise SystemExit(f"--repository {name}: {path} is no folder. Clone the repository there first.")
    results: dict[str, Any] = {"machine": machine(arguments.threads), "shape": arguments.shape, "measured": []}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        make_network(SHAPES[arguments.shape], "float32").save_pretrained(checkpoint)
        for dtype in arguments.dtype:
            for name in arguments.method:
                results["measured"].append(_measure(name, dtype, repositories, checkpoint, arguments))
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                arguments.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for clock in CLOCKS:
        Console().print(as_table(results["measured"], clock))


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    models = [line for line in _cpu_information() if line.startswith("model name")]
    return {
        "processor": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "torch": torch.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def _cpu_information() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--prompt", type=int, default=512, help="positions")
    parser.add_argument("--response", type=int, default=128, help="positions")
    parser.add_argument("--block", type=int, default=32, help="positions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each")
    parser.add_argument("--turn", type=int, default=32, help="steps that one takes before it is another's turn")
    parser.add_argument("--least", type=int, default=None, help="cut runs short once every kind was seen so often")
    parser.add_argument("--output", type=Path, default=Path("peers.json"))
    return parser


def _measure(
    name: str, dtype: str, repositories: dict[str, str], checkpoint: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    method, shape = METHODS[name], SHAPES[arguments.shape]
    setting = Setting(
        prompt=arguments.prompt,
        response=arguments.response,
        block=arguments.block,
        dtype=dtype,
        threads=arguments.threads,
    )
    require_memory(shape, dtype, arguments.prompt + arguments.response)
    prompt = make_prompt(shape, setting.prompt)
    most = setting.steps if arguments.least is None else method.enough(setting, arguments.least)
    contestants = [Contestant(name, "", method) for name in (OURS, *SLOWER)] + [
        Contestant(peer, path, method) for peer, path in repositories.items() if name in IMPLEMENTS[peer]
    ]
    failures: dict[str, str] = {}
    with ExitStack() as stack, Progress(transient=True) as progress:
        workers = [
            stack.enter_context(Worker(contestant, setting, checkpoint, prompt, arguments.turn, most))
            for contestant in contestants
        ]
        ready = []
        for worker in workers:
            try:
                worker.ready()
                ready.append(worker)
            except PeerError as error:
                failures[worker.contestant.implementation] = str(error)
        task = progress.add_task(f"{name}, {dtype}", total=arguments.rounds * len(ready) * most)
        for _ in range(arguments.rounds):
            for moved in take_turns([worker for worker in ready if not failed(worker, failures)], failures):
                progress.advance(task, moved)
        for message in failures.values():
            progress.console.print(message)
    summary = summarise([worker for worker in ready if not failed(worker, failures)], setting)
    return {"method": name, "policy": method.spec(setting), "setting": asdict(setting), "failed": failures, **summary}


def failed(worker: Worker, failures: dict[str, str]) -> bool:
    """Whether ``failures`` names it; without our own there is nothing to compare with."""
    name = worker.contestant.implementation
    if name == OURS and name in failures:
        raise SystemExit(failures[name])
    return name in failures


def summarise(workers: Sequence[Worker], setting: Setting) -> dict[str, Any]:
    """Seconds of a step of each implementation, ratios to ours, and the share of tokens that agree with ours."""
    method = workers[0].contestant.method
    kinds = method.kinds(setting)
    by_name = {worker.contestant.implementation: worker.times for worker in workers}
    ours = by_name[OURS]
    found: dict[str, Any] = {"target": method.target, "implementations": {}}
    for name, times in by_name.items():
        agreeing = None
        if times.tokens is not None and ours.tokens is not None:
            pairs = zip(times.tokens, ours.tokens, strict=True)
            agreeing = sum(a == b for a, b in list(pairs)[setting.prompt :]) / setting.response
        entry: dict[str, Any] = {"steps": sum(map(len, times.wall)), "same_tokens": agreeing}
        for clock in CLOCKS:
            theirs, mine = (samples_by_kind(getattr(each, clock), kinds) for each in (times, ours))
            entry[clock] = {
                "step": asdict(step_interval(theirs, kinds)),
                "ratio": asdict(ratio_interval(theirs, mine, kinds)),
                "by_kind": {kind: float(sorted(seconds)[len(seconds) // 2]) for kind, seconds in theirs.items()},
            }
        found["implementations"][name] = entry
    return found


def as_table(measured: Sequence[dict[str, Any]], clock: str) -> Table:
    """Milliseconds of a step and how many times longer than ours, with intervals."""
    table = Table(title=f"time of a step, {clock} clock")
    for column in ("method", "dtype", "implementation", "ms a step", "times ours", "same tokens"):
        table.add_column(column, justify="left" if column in {"method", "dtype", "implementation"} else "right")
    for entry in measured:
        for name, figures in entry["implementations"].items():
            step, ratio = figures[clock]["step"], figures[clock]["ratio"]
            agreeing = figures["same_tokens"]
            table.add_row(
                entry["method"],
                entry["setting"]["dtype"],
                name,
                f"{1000 * step['value']:.1f}",
                f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
                "" if agreeing is None else f"{agreeing:.0%}",
            )
    return table


if __name__ == "__main__":
    main()
