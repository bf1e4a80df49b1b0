"""Views and predictions made by hand, so that a decoder can be tested without a model."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.decoder import Prediction
from freshkv.core.distribution import Distribution
from freshkv.core.view import StepView

PROMPT = 2
MASK = 9
VOCABULARY = 10


def view(masked: list[list[int]], *, block_length: int | None = None, step: int = 0, **changes: object) -> StepView:
    """A view whose response positions are masked where ``masked`` is 1; the active block is the first with a mask."""
    is_masked = torch.tensor(masked, dtype=torch.bool)
    batch, gen_length = is_masked.shape
    block_length = gen_length if block_length is None else block_length
    is_masked = torch.cat((torch.zeros(batch, PROMPT, dtype=torch.bool), is_masked), dim=1)
    position = torch.arange(PROMPT + gen_length).expand(batch, -1) - PROMPT
    block_index = torch.where(position < 0, -1, position // block_length)
    first = torch.where(is_masked, block_index, 10_000).amin(dim=1, keepdim=True)
    tokens = torch.where(is_masked, MASK, 1)
    facts: dict[str, object] = {
        "tokens": tokens,
        "is_masked": is_masked,
        "is_open": is_masked,
        "is_prompt": position < 0,
        "is_valid": torch.ones_like(is_masked),
        "in_block": block_index == first,
        "block_index": block_index,
        "block_length": block_length,
        "gen_length": gen_length,
        "step": step,
        "step_in_block": step,
        "dirty": torch.zeros_like(is_masked),
        "age": torch.ones_like(tokens),
        "committed_at": torch.where(is_masked, -1, 0),
        "confidence": torch.full(tokens.shape, -torch.inf),
        "sequence": torch.arange(batch),
    }
    return StepView(**(facts | changes))  # type: ignore[arg-type]


def prediction(of: StepView, logits: Tensor, **changes: object) -> Prediction:
    """A prediction of every masked position of the active block; ``logits`` [batch, gen_length, VOCABULARY]."""
    positions = of.is_masked & of.in_block
    wide = torch.cat((torch.zeros(logits.shape[0], PROMPT, VOCABULARY), logits), dim=1)
    wide[..., MASK] = -torch.inf
    packed = wide[positions]
    distribution = Distribution(packed, torch.full((packed.shape[0],), -torch.inf), MASK)
    tokens = torch.full(positions.shape, MASK).masked_scatter(positions, distribution.best)
    confidence = torch.full(positions.shape, -torch.inf)
    confidence = confidence.masked_scatter(positions, distribution.probability_of(distribution.best))
    facts: dict[str, object] = {
        "positions": positions,
        "tokens": tokens,
        "confidence": confidence,
        "distribution": distribution,
        "verified": torch.full(positions.shape, torch.nan),
        "divergence": torch.full(positions.shape, torch.inf),
        "noise": torch.linspace(0.1, 0.9, positions.numel()).view(positions.shape),
    }
    return Prediction(**(facts | changes))  # type: ignore[arg-type]


def logits_of(confidences: list[list[float]]) -> Tensor:
    """Logits [batch, gen_length, VOCABULARY] under which the best token of each position has this probability."""
    probability = torch.tensor(confidences)
    rest = (1 - probability) / (VOCABULARY - 2)
    logits = rest[..., None].expand(*probability.shape, VOCABULARY).clone().log()
    logits[..., 3] = probability.log()
    return logits


def response(mask: Tensor) -> list[list[bool]]:
    """The response part of a canvas mask."""
    rows: list[list[bool]] = mask[:, PROMPT:].tolist()
    return rows
