"""Mixtures of experts on packed rows: each row goes through the experts that its router chose, alone."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from freshkv.models.decoder import DecoderMLP


def make_experts(count: int, width: int, inner: int) -> nn.ModuleList:
    """``count`` gated networks, as checkpoints name them: ``experts.N.gate_proj`` and so on."""
    return nn.ModuleList(DecoderMLP(width, inner) for _ in range(count))


def mix(hidden: Tensor, experts: nn.ModuleList, chosen: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of what the chosen experts make of each row, [rows, width].

    ``chosen``, long [rows, k], are different experts; ``weights`` [rows, k]. One synchronisation with the device, for
    which experts are used at all.
    """
    mixed = hidden.new_zeros(hidden.shape)
    for number in torch.unique(chosen).tolist():
        rows, place = (chosen == number).nonzero(as_tuple=True)
        answer = cast("Tensor", experts[number](hidden.index_select(0, rows)))
        # rows are distinct and experts come in order, so that a row does not depend on those packed with it
        mixed.index_add_(0, rows, answer * weights[rows, place, None].to(hidden.dtype))
    return mixed
