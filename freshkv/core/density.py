"""The certainty density of d2Cache: how much is known around a position."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_REACH = 6.0  # standard deviations; the weight beyond is below float32's resolution


def certainty_density(is_masked: Tensor, is_prompt: Tensor, sigma: float) -> Tensor:
    """Gaussian-weighted share of known positions around each response position: float32 [batch, seq].

    ``is_masked`` and ``is_prompt`` are bool [batch, seq]; ``sigma`` is in positions. Left of the response counts as
    known, right of it as known only once the last position is. 1 in the prompt. (arXiv:2509.23094, section 3.2)
    """
    reach = math.ceil(_REACH * sigma)
    distance = torch.arange(-reach, reach + 1, device=is_masked.device, dtype=torch.float32)
    weight = torch.exp(-(distance**2) / (2 * sigma**2))
    known = (is_prompt | ~is_masked).float()
    left = known.new_ones((known.shape[0], reach))
    right = known[:, -1:].expand(-1, reach)
    extended = torch.cat((left, known, right), dim=1)[:, None]  # [batch, 1, reach + seq + reach]
    density = functional.conv1d(extended, (weight / weight.sum())[None, None])[:, 0]
    return density.masked_fill(is_prompt, 1.0)
