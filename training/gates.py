"""Judge trained models: ``python -m training.gates FOLDER ...`` prints a table and fails if a gate is missed.

For every task, held-out problems, blocks of 16, one token a step: ``none``, ``prefix`` and ``dual`` solve at least .95;
``mask-time``, whose response rows are never rewritten once their token is known, at most .2; on the task ``weave``,
``no-block-start`` (dual without its refresh when a block opens) at least .1 less than ``dual``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from attrs import frozen
from torch import Tensor
from transformers import PreTrainedTokenizerFast

import freshkv
from freshkv import CachePolicy, LayerView, LayerwisePolicy, Selection, StepView
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.tasks import Problem, Task, tasks
from training.recipe import ORDERED_SHARES

BLOCK = 16
BATCH = 50
SEED = 20_000  #: of the held-out problems
GOOD, BAD, MARGIN = 0.95, 0.2, 0.1


@frozen
class MaskTime(LayerwisePolicy):
    """Refresh the masks of the block and nothing else: a row keeps what it had as a mask once its token is known.

    Layer-wise, so that this holds in a model with shifted logits, too: there a known row predicts the next position
    from its cached outputs, while a narrow policy would have to compute it again.
    """

    name = "mask-time"

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """The same rows in all layers."""
        return view.in_block & view.is_masked


@frozen
class NoBlockStart(CachePolicy):
    """Dual without its refresh when a block opens."""

    name = "no-block-start"

    def select(self, view: StepView) -> Selection:
        """The core refreshes everything once, in the first step."""
        return Selection(predict=view.in_block)


POLICIES: dict[str, str | CachePolicy] = {
    "none": "none",
    "prefix": "prefix",
    "dual": "dual",
    "mask-time": MaskTime(),
    "no-block-start": NoBlockStart(),
}


def accuracy(
    model: LlamaLikeModel,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    policy: str | CachePolicy,
    count: int,
) -> float:
    """Share of ``count`` held-out problems that are solved."""
    problems = task.generate(count, SEED)
    prompts = torch.tensor([tokenizer.encode(problem.prompt) for problem in problems])  # long [count, prompt]
    solved = 0
    for start in range(0, count, BATCH):
        run = freshkv.generate(
            model,
            prompts[start : start + BATCH],
            policy=policy,
            gen_length=task.gen_length,
            block_length=BLOCK,
        )
        solved += _count_solved(tokenizer, task, problems[start : start + BATCH], run.sequences[:, prompts.shape[1] :])
    return solved / count


def _count_solved(tokenizer: PreTrainedTokenizerFast, task: Task, problems: list[Problem], responses: Tensor) -> int:
    texts = tokenizer.batch_decode(responses)
    return sum(task.check(problem, text) for problem, text in zip(problems, texts, strict=True))


def missed_gates(task: str, accuracies: dict[str, float]) -> list[str]:
    """What is wrong with the accuracies of one model on one task; nothing if all gates hold."""
    missed = [
        f"{name} {accuracies[name]:.3f} < {GOOD}" for name in ("none", "prefix", "dual") if accuracies[name] < GOOD
    ]
    if accuracies["mask-time"] > BAD:
        missed.append(f"mask-time {accuracies['mask-time']:.3f} > {BAD}")
    if task == "weave" and accuracies["no-block-start"] > accuracies["dual"] - MARGIN:
        missed.append(f"no-block-start {accuracies['no-block-start']:.3f} > dual - {MARGIN}")
    return missed


def main() -> None:
    """Judge every folder on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    failures = []
    print("| model | task | " + " | ".join(POLICIES) + " |")
    print("| --- | --- |" + " --- |" * len(POLICIES))
    for folder in arguments.folders:
        model, tokenizer = freshkv.load(folder), PreTrainedTokenizerFast.from_pretrained(folder)
        for name in ORDERED_SHARES:
            task = tasks()[name]()
            row = {
                label: accuracy(model, tokenizer, task, policy, arguments.problems)
                for label, policy in POLICIES.items()
            }
            print(
                f"| {folder.name} | {name} | " + " | ".join(f"{value:.3f}" for value in row.values()) + " |", flush=True
            )
            failures += [f"{folder.name}, {name}: {gate}" for gate in missed_gates(name, row)]
    sys.exit("Gates missed:\n" + "\n".join(failures) if failures else 0)


if __name__ == "__main__":
    main()
