"""Train a bundled model from scratch: ``python -m training.train tiny-llada --output FOLDER``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.tasks import Task, tasks
from training.batches import Batch, build_batch
from training.forward import masked_loss
from training.networks import build
from training.optimizer import build_optimizers
from training.vocabulary import build_tokenizer

WARMUP = 50  #: steps
AVERAGE = 0.995  #: decay of the running average of the weights


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("tiny-llada", "tiny-dream"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64, help="sequences a step")
    parser.add_argument("--tasks", nargs="+", default=sorted(tasks()))
    parser.add_argument("--ordered", nargs="*", default=[])
    return parser.parse_args()


def batches(
    chosen: list[Task], tokenizer: PreTrainedTokenizerFast, size: int, seed: int, ordered: list[str]
) -> Iterator[Batch]:
    """Endless batches with equal shares of the tasks."""
    generator = torch.Generator().manual_seed(seed)
    share = -(-size // len(chosen))
    seq = max(len(p.prompt.split()) + t.gen_length for t in chosen for p in t.generate(1, held_out=False))
    step = 0
    while True:
        problems = [p for task in chosen for p in task.generate(share, seed * 10**6 + step, held_out=False)]
        marks = torch.tensor([task.name in ordered for task in chosen for _ in range(share)])
        yield build_batch(tokenizer, problems, seq, generator, ordered=marks)
        step += 1


def learning_rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a short warm-up, then flat, then straight to zero over the last half."""
    return min((step + 1) / WARMUP, 1.0, (steps - step) / (steps / 2))


def train(model: LlamaLikeModel, stream: Iterator[Batch], steps: int) -> None:
    """Train ``model``; it ends with the running average of its weights."""
    optimizers = build_optimizers(model)
    full_rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    average = [parameter.detach().clone() for parameter in model.parameters()]
    compiled = torch.compile(masked_loss, dynamic=False)
    start, losses = time.monotonic(), []
    rotary = None
    for step in range(steps):
        batch = next(stream)
        if rotary is None:
            size, seq = batch.tokens.shape
            rotary = tuple(t.repeat(size, 1) for t in model.rotary(torch.arange(seq)))
        with torch.autocast("cpu", torch.bfloat16):
            loss = compiled(model, batch, rotary)
        loss.backward()
        for optimizer, rate in zip(optimizers, full_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * learning_rate(step, steps)
            optimizer.step()
            optimizer.zero_grad()
        torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - AVERAGE)
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean = sum(losses[-50:]) / 50
            print(f"step {step + 1}/{steps} loss {mean:.4f} {time.monotonic() - start:.0f} s", flush=True)
        if (step + 1) % 250 == 0 and HOOK is not None:
            HOOK(model, average, step + 1)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), average, strict=True):
            parameter.copy_(value)

HOOK = None

def main() -> None:
    """Train and save."""
    arguments = parse()
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    model = build(arguments.name, tokenizer, arguments.seed)
    chosen = [tasks()[name]() for name in arguments.tasks]
    train(model, batches(chosen, tokenizer, arguments.batch, arguments.seed, arguments.ordered), arguments.steps)
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
