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
    known = ~is_masked
    response = int(is_prompt[0].sum())
    reach = math.ceil(_REACH * sigma)
    distance = torch.arange(-reach, reach + 1, device=known.device, dtype=torch.float32)
    weight = torch.exp(-(distance**2) / (2 * sigma**2))
    surely = known[:, response:].float()
    left = surely.new_ones((surely.shape[0], reach))
    right = surely[:, -1:].expand(-1, reach)
    extended = torch.cat((left, surely, right), dim=1)[:, None]  # [batch, 1, reach + response + reach]
    density = functional.conv1d(extended, (weight / weight.sum())[None, None])[:, 0]
    return torch.cat((density.new_ones((density.shape[0], response)), density), dim=1)
