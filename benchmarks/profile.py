"""Where the time of a step goes, by policy: processor time of one thread, in parts that add up.

python -m benchmarks.profile --output profile.json
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from pathlib import Path
from typing import Any

import torch
from attrs import asdict, frozen
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.conftest import POLICIES
from benchmarks.networks import DTYPES, SHAPES, make_network, make_prompt, require_memory
from benchmarks.weights import WEIGHTS, add_weights
from freshkv.core.canvas import Canvas
from freshkv.core.loop import DenoisingLoop, RunOptions
from freshkv.core.recorder import Recorder
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.core.state import RunState

#: matrix work first; what is left over comes last
MATRIX = ("projections", "feed-forward", "attention", "head", "signals")
PARTS = (*MATRIX, "tokens, confidences", "policy, plan", "decoder", "rest")

#: (file, function) to the part that its time, with all that it calls, belongs to; none calls another of them
OWNERS = {
    ("backbone.py", "project"): "projections",
    ("backbone.py", "project_values"): "projections",
    ("backbone.py", "attention_output"): "projections",
    ("backbone.py", "feed_forward"): "feed-forward",
    ("attention.py", "attend"): "attention",
    ("attention.py", "attend_openly"): "attention",
    ("backbone.py", "logits"): "head",
    ("engine.py", "rollout"): "signals",
    ("plan.py", "plan_step"): "policy, plan",
    ("layerwise.py", "choose"): "policy, plan",
    ("loop.py", "_decode"): "decoder",
}
#: contains the head
PREDICT = ("predict.py", "predict")
STEP = ("loop.py", "step")


@frozen(kw_only=True)
class Profile:
    """Milliseconds of processor time of a step, in parts."""

    policy: str
    dtype: str
    steps: int
    parts: dict[str, float]

    @property
    def total(self) -> float:
        """Of the step."""
        return sum(self.parts.values())

    @property
    def matrix_share(self) -> float:
        """What is matrix work of the whole."""
        return sum(self.parts[part] for part in MATRIX) / self.total

    @property
    def deciding_share(self) -> float:
        """What policy, plan and decoder take of the whole."""
        return (self.parts["policy, plan"] + self.parts["decoder"]) / self.total


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", nargs="+", default=list(POLICIES))
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--shape", default="small", choices=list(SHAPES))
    parser.add_argument("--prompt", type=int, default=512, help="positions")
    parser.add_argument("--response", type=int, default=128, help="positions")
    parser.add_argument("--block", type=int, default=32, help="positions")
    parser.add_argument("--steps", type=int, default=8, help="profiled ones, of the first block")
    add_weights(parser)
    parser.add_argument("--output", type=Path, default=Path("profile.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # time that a thread waits for another would count as work
    found: list[Profile] = []
    cases = [(dtype, policy) for dtype in arguments.dtype for policy in arguments.policy]
    for dtype, policy in track(cases, transient=True):
        found.append(profile(policy, dtype, arguments))
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(each) for each in found], indent=1)
        arguments.output.write_text(text + "\n", encoding="utf-8")
    Console().print(as_table(found))


def profile(policy: str, dtype: str, arguments: argparse.Namespace) -> Profile:
    """Some steps of the first block, after two that warm up."""
    shape = SHAPES[arguments.shape]
    require_memory(shape, dtype, arguments.prompt + arguments.response)
    network = make_network(shape, dtype, prepacked=WEIGHTS[arguments.weights])
    prompt = make_prompt(shape, arguments.prompt)
    canvas = Canvas.create(
        prompt, None, arguments.response, arguments.block, network.network_spec, network.device, None
    )
    options = RunOptions(
        policy=resolve_policy(policy), decoder=resolve_decoder("confidence"), sampling=Sampling(), seeds=(0,)
    )
    loop = DenoisingLoop(network, RunState.start(canvas), options, Recorder(canvas))
    loop.step()
    loop.step()
    watch = cProfile.Profile(time.process_time)
    watch.enable()
    for _ in range(arguments.steps):
        loop.step()
    watch.disable()
    return Profile(policy=policy, dtype=dtype, steps=arguments.steps, parts=parts_of(watch, arguments.steps))


def parts_of(watch: cProfile.Profile, steps: int) -> dict[str, float]:
    """Milliseconds of a step by part, in the order of PARTS."""
    seconds = dict.fromkeys(PARTS, 0.0)
    predicting = total = 0.0
    figures: dict[tuple[str, int, str], tuple[Any, ...]] = pstats.Stats(watch).stats  # type: ignore[attr-defined]
    for (file, _, function), (_, _, _, cumulative, _) in figures.items():
        place = (Path(file).name, function)
        if place in OWNERS:
            seconds[OWNERS[place]] += cumulative
        predicting += cumulative if place == PREDICT else 0.0
        total += cumulative if place == STEP else 0.0
    seconds["tokens, confidences"] = predicting - seconds["head"]
    seconds["rest"] = total - sum(seconds.values())
    return {part: 1000 * taken / steps for part, taken in seconds.items()}


def as_table(found: list[Profile]) -> Table:
    """A line a policy; parts in milliseconds."""
    table = Table(title="processor time of a step, ms")
    for column in ("dtype", "policy", "step", *PARTS, "matrix work"):
        table.add_column(column, justify="left" if column in {"dtype", "policy"} else "right")
    for each in found:
        cells = [f"{each.parts[part]:.1f}" for part in PARTS]
        table.add_row(each.dtype, each.policy, f"{each.total:.1f}", *cells, f"{each.matrix_share:.0%}")
    return table


if __name__ == "__main__":
    main()
