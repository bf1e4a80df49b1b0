"""Ranks along a sequence. All of them break ties toward the lower position."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.axes import SEQ


def descending_rank(score: Tensor) -> Tensor:
    """long [batch, seq]: 0 for the highest score of a sequence, 1 for the next, ..."""
    order = score.argsort(dim=SEQ, descending=True, stable=True)
    place = torch.arange(score.shape[SEQ], device=score.device).expand_as(order)
    return torch.empty_like(order).scatter_(SEQ, order, place)


def best(score: Tensor, among: Tensor, count: int | Tensor) -> Tensor:
    """bool [batch, seq]: the ``count`` (int, or long [batch, 1]) highest scores among the positions in ``among``.

    Fewer where there are not so many. ``score`` must not be -inf or NaN there.
    """
    rank = descending_rank(torch.where(among, score, -torch.inf))
    return among & (rank < count)
