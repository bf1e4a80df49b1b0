"""What happened in a run: the rows of each step, and the step of each token. Traces are kept in one file.

python examples/inspect_a_trace.py --policy d2cache:current_k=8
"""

from __future__ import annotations

import argparse

import torch

import freshkv
from freshkv import Trace


def draw(trace: Trace) -> None:
    """A line for each step: ``#`` a recomputed row of the response, ``c`` a position that is committed."""
    response = slice(trace.prompt_length, None)
    for number, step in enumerate(trace):
        marks = zip(step.refreshed[0, response].tolist(), step.committed[0, response].tolist(), strict=True)
        line = "".join("c" if committed else "#" if refreshed else "." for refreshed, committed in marks)
        print(f"{number:3}  {line}  {step.rows_computed:3} rows")


def main() -> None:
    """Decode, save, load, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="dual")
    parser.add_argument("--output", default="trace.safetensors")
    arguments = parser.parse_args()

    model, tokenizer = freshkv.load("tiny-llada"), freshkv.load_tokenizer("tiny-llada")
    ids = torch.tensor([tokenizer.encode("weave 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2")])  # long [batch, prompt]
    run = freshkv.generate(model, ids, policy=arguments.policy, gen_length=32, block_length=8)
    run.trace.save(arguments.output)

    trace = Trace.load(arguments.output)
    draw(trace)
    print("committed in step", trace.committed_at[0, trace.prompt_length :].tolist())
    late = sum(int(step.added.sum()) for step in trace[1:])
    print(
        f"{late} rows were added by the core after the first step; a policy that predicts masks of the block needs none"
    )


if __name__ == "__main__":
    main()
