"""Training batches: problems as tokens on one canvas width, with masks of three kinds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count

import torch
from attrs import frozen
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from freshkv.models.tasks import Problem, Task, tasks
from training.masks import attention_bias, draw_masks
from training.recipe import ORDERED_SHARES

SEED_SPACING = 10**6  #: problem seeds of one run; more than it has steps


@frozen(eq=False)
class Batch:
    """What one training step needs; response positions are the last ``gen_length`` of the canvas."""

    tokens: Tensor  #: long [batch, seq], partly masked
    bias: Tensor  #: float32 [batch, 1, seq, seq], added to attention scores
    answers: Tensor  #: long [batch, gen_length]
    weights: Tensor  #: float32 [batch, gen_length], the weight of each position in the loss, 0 where not masked


def encode(tokenizer: PreTrainedTokenizerFast, problems: list[Problem], seq: int) -> tuple[Tensor, Tensor]:
    """Prompts and answers left-padded to ``seq``: tokens long [batch, seq], valid bool [batch, seq]."""
    rows = [tokenizer.encode(f"{problem.prompt} {problem.answer}") for problem in problems]
    tokens = torch.tensor([[tokenizer.pad_token_id] * (seq - len(row)) + row for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(seq) >= (seq - lengths)[:, None]


def batches(tokenizer: PreTrainedTokenizerFast, sequences: Mapping[str, int], seed: int, shift: int) -> Iterator[Batch]:
    """Endless batches for a model whose logits are shifted by ``shift``.

    Each has ``sequences`` of each task, one task after the other.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = {tasks()[name](): number for name, number in sequences.items()}
    ordered_shares = torch.tensor([ORDERED_SHARES[task.name] for task, number in chosen.items() for _ in range(number)])
    seq = max(_canvas_length(task) for task in chosen)
    for step in count():
        problems = [
            problem
            for task, number in chosen.items()
            for problem in task.generate(number, seed * SEED_SPACING + step, held_out=False)
        ]
        ordered = torch.rand(ordered_shares.shape, generator=generator) < ordered_shares
        yield build_batch(tokenizer, problems, seq, generator, ordered, shift)


def _canvas_length(task: Task) -> int:
    (problem,) = task.generate(1, held_out=False)
    return len(problem.prompt.split()) + task.gen_length


def build_batch(
    tokenizer: PreTrainedTokenizerFast,
    problems: list[Problem],
    seq: int,
    generator: torch.Generator,
    ordered: Tensor,
    shift: int,
) -> Batch:
    """``problems`` as one batch; ``ordered`` and ``shift``: see ``draw_masks``."""
    tokens, valid = encode(tokenizer, problems, seq)
    length = len(problems[0].answer.split())
    masks = draw_masks(length, generator, ordered, shift)
    answers = tokens[:, -length:].clone()
    tokens[:, -length:] = torch.where(masks.masked, tokenizer.mask_token_id, answers)
    return Batch(tokens, attention_bias(masks, valid, shift), answers, masks.weights)
