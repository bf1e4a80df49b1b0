"""Which tokens of a training canvas are masked, what they weigh in the loss, and which rows see what."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from training.recipe import STALE_SHARE

BLOCK = 16
SEQ = 1
NEVER = -1e9  #: added to the attention score of a key that is not seen


@frozen(eq=False)
class Masks:
    """Masks of the responses of one batch."""

    masked: Tensor  #: bool [batch, gen_length]
    weights: Tensor  #: float32 [batch, gen_length], the weight of each position in the loss, 0 where not masked
    block_start: Tensor  #: long [batch, 1], response position where the block in work starts
    is_stale: Tensor  #: bool [batch, 1]; rows outside the block in work do not see it


def draw_masks(length: int, generator: torch.Generator, ordered: Tensor, shift: int) -> Masks:
    """Masks of one kind for each sequence; ``ordered``, bool [batch], marks those of the last two kinds only.

    Half of the sequences mask each position independently with a probability t, weight 1/t. A quarter are
    semi-autoregressive: what is left of a block is known, the block is masked likewise, what is right of it is
    masked. A quarter are a bare frontier: everything from some position on is masked. Only positions of the block in
    work count in the last two. Most of those two are stale, see ``attention_bias``; in a model with shifted logits the
    row of the block's last position is not refreshed with the block, so a stale block has that position masked.
    """
    sequences = len(ordered)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    position = torch.arange(length)
    probability = 0.05 + 0.95 * uniform(sequences, 1)
    independent = uniform(sequences, length) < probability
    frontier = (uniform(sequences, 1) * length).long()
    block_start = frontier // BLOCK * BLOCK
    in_block = (position >= block_start) & (position < block_start + BLOCK)
    right = position >= block_start + BLOCK
    kind = uniform(sequences, 1)
    kind = torch.where(ordered[:, None], 0.5 + kind / 2, kind)
    is_independent, is_blockwise = kind < 0.5, (kind >= 0.5) & (kind < 0.75)
    is_stale = ~is_independent & (uniform(sequences, 1) < STALE_SHARE)
    masked = torch.where(is_blockwise, (in_block & independent) | right, position >= frontier)
    masked = torch.where(is_independent, independent, masked)
    masked = masked | (is_stale & (position >= block_start + BLOCK - shift))
    block_masks = (masked & in_block).sum(dim=SEQ, keepdim=True).clamp(min=1)
    weights = torch.where(is_independent, 1 / probability / length, in_block / block_masks)
    return Masks(masked, weights * masked, block_start, is_stale)


def attention_bias(masks: Masks, valid: Tensor, shift: int) -> Tensor:
    """What is added to attention scores, float32 [batch, 1, seq, seq]; ``valid``, bool [batch, seq], not padding.

    In a stale sequence, rows outside the block in work do not see the block, as if their keys and values had been
    cached when it opened. Without that, a model with shifted logits learns to solve a sudoku in the rows of the prompt,
    which prefix and dual caches do not refresh within a block.
    """
    seq, length = valid.shape[SEQ], masks.masked.shape[SEQ]
    row = torch.arange(seq) - (seq - length) + shift  # response position that a row predicts
    in_block = (row >= masks.block_start) & (row < masks.block_start + BLOCK)  # bool [batch, seq]
    hidden = masks.is_stale[:, :, None] & ~in_block[:, :, None] & in_block[:, None, :]
    return torch.where(valid[:, None, :] & ~hidden, 0.0, NEVER)[:, None]
