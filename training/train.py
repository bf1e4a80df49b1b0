"""Train a bundled model from scratch: ``python -m training.train tiny-llada --output FOLDER``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from freshkv.models.backbone import LlamaLikeModel
from training.batches import Batch, batches
from training.forward import masked_losses
from training.networks import build
from training.optimizer import RunningAverage, build_optimizers
from training.recipe import RECIPES, WARMUP
from training.vocabulary import build_tokenizer, save_tokenizer

REPORT_EVERY = 50  #: steps


def learning_rate(step: int, steps: int) -> float:
    """Share of the full learning rate: a short warm-up, then flat, then straight to zero over the last half."""
    return min((step + 1) / WARMUP, 1.0, (steps - step) / (steps / 2))


def train(model: LlamaLikeModel, stream: Iterator[Batch], sequences: Mapping[str, int], steps: int) -> None:
    """Train ``model`` for ``steps`` batches; it ends with the running average of its weights."""
    optimizers = build_optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
        for optimizer in optimizers
    ]
    average = RunningAverage(model)
    losses_of = torch.compile(masked_losses, dynamic=False)
    report = Report(sequences, steps)
    for batch in (next(stream) for _ in range(steps)):
        with torch.autocast("cpu", torch.bfloat16):
            losses = losses_of(model, batch)  # float32 [batch]
        losses.mean().backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        average.update(model)
        report.add(losses.detach())
    average.copy_to(model)


class Report:
    """Prints the mean loss of each task now and then."""

    def __init__(self, sequences: Mapping[str, int], steps: int) -> None:
        self.sequences = sequences
        self.steps = steps
        self.started = time.monotonic()
        self.losses: list[Tensor] = []  # float32 [tasks], one for each step

    def add(self, losses: Tensor) -> None:
        """Note the losses of one batch, float32 [batch], its tasks one after the other."""
        parts = losses.split(list(self.sequences.values()))
        self.losses.append(torch.stack([part.mean() for part in parts]))
        if len(self.losses) % REPORT_EVERY == 0:
            means = torch.stack(self.losses[-REPORT_EVERY:]).mean(dim=0).tolist()
            shown = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(self.sequences, means, strict=True))
            print(
                f"step {len(self.losses)} of {self.steps}: {shown}, {time.monotonic() - self.started:.0f} s", flush=True
            )


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Train, then save weights, configuration and tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--output", type=Path, required=True, help="the folder that is written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=None, help="instead of the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = RECIPES[arguments.name]
    tokenizer = build_tokenizer()
    model = build(arguments.name, tokenizer, recipe.layers, arguments.seed)
    print(f"{arguments.name}: {count_parameters(model):,} parameters, seed {arguments.seed}")
    stream = batches(tokenizer, recipe.sequences, arguments.seed, model.network_spec.logits_shift)
    train(model, stream, recipe.sequences, recipe.steps if arguments.steps is None else arguments.steps)
    model.save_pretrained(arguments.output)
    save_tokenizer(tokenizer, arguments.output)


if __name__ == "__main__":
    main()
