"""Training batches: problems as tokens on one canvas width, with masks of three kinds."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from freshkv.models.tasks import Problem

BLOCK = 16
SEQ = 1


@frozen(eq=False)
class Batch:
    """What one training step needs; response positions are the last ``gen_length`` of the canvas."""

    tokens: Tensor  #: long [batch, seq], partly masked
    valid: Tensor  #: bool [batch, seq], false at left padding
    answers: Tensor  #: long [batch, gen_length]
    weights: Tensor  #: float32 [batch, gen_length], the weight of each position in the loss, 0 where not masked


def encode(tokenizer: PreTrainedTokenizerFast, problems: list[Problem], seq: int) -> tuple[Tensor, Tensor]:
    """Prompts and answers left-padded to ``seq``: tokens long [batch, seq], valid bool [batch, seq]."""
    rows = [tokenizer.encode(f"{problem.prompt} {problem.answer}") for problem in problems]
    tokens = torch.tensor([[tokenizer.pad_token_id] * (seq - len(row)) + row for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, torch.arange(seq) >= (seq - lengths)[:, None]


def loss_weights(count: int, length: int, generator: torch.Generator, *, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Which response positions to mask, bool [count, length], and their weights in the loss, float32 likewise.

    Half of the sequences mask each position independently with a probability t, weight 1/t. A quarter are
    semi-autoregressive: what is left of a block is known, the block is masked likewise, what is right of it is
    masked. A quarter are a bare frontier: everything from some position on is masked. ``ordered``, bool [count], marks
    sequences that take no independent masks. Only positions of the block in work count in the last two.
    """
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    position = torch.arange(length)
    probability = 0.05 + 0.95 * uniform(count, 1)
    independent = uniform(count, length) < probability
    frontier = (uniform(count, 1) * length).long()
    block_start = frontier // BLOCK * BLOCK
    in_block = (position >= block_start) & (position < block_start + BLOCK)
    right = position >= block_start + BLOCK
    kind = uniform(count, 1)
    kind = torch.where(ordered[:, None], 0.5 + kind / 2, kind)
    bare, blockwise = kind >= 0.75, (kind >= 0.5) & (kind < 0.75)
    masked = torch.where(bare, position >= frontier, torch.where(blockwise, (in_block & independent) | right, independent))
    block_masks = (masked & in_block).sum(dim=SEQ, keepdim=True).clamp(min=1)
    weights = torch.where(kind < 0.5, 1 / probability / length, in_block / block_masks)
    return masked, weights * masked


def build_batch(
    tokenizer: PreTrainedTokenizerFast, problems: list[Problem], seq: int, generator: torch.Generator, *, ordered: Tensor
) -> Batch:
    """``problems`` as one batch; ``ordered``: see ``loss_weights``."""
    tokens, valid = encode(tokenizer, problems, seq)
    length = len(problems[0].answer.split())
    masked, weights = loss_weights(len(problems), length, generator, ordered=ordered)
    answers = tokens[:, -length:].clone()
    tokens[:, -length:] = torch.where(masked, tokenizer.mask_token_id, answers)
    return Batch(tokens, valid, answers, weights)
