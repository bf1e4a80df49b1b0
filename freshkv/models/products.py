"""The products of rows with a weight, in the order of operands that is fastest for few rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

#: whether the weight may be the left operand: where that pays, wherever it can be done, or nowhere
OperandOrder = Literal["auto", "weight first", "rows first"]

#: rows, at most, for which the weight as left operand was faster on the CPU (docs/performance.md has the figures). Its
#: kernels fill their tiles from the left operand's rows: cached steps have a few dozen, a weight has hundreds
WORTH = {torch.float32: 96, torch.bfloat16: 256}


class Projection(nn.Linear):
    """``nn.Linear`` on packed rows [rows, in_features] that multiplies from the weight's side where rows are few.

    The result is that of ``nn.Linear`` up to the order of additions; its memory may then be laid out by columns.
    Weights of any other kind (quantised ones) and training take the way of ``nn.Linear``.
    """

    operand_order: OperandOrder = "auto"

    def forward(self, rows: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        if not self._weight_first(rows):
            return super().forward(rows)
        if self.bias is None:
            return torch.mm(self.weight, rows.mT).mT
        return torch.addmm(self.bias[:, None], self.weight, rows.mT).mT

    def _weight_first(self, rows: Tensor) -> bool:
        if self.operand_order == "rows first" or rows.ndim != 2 or type(self.weight) is not nn.Parameter:
            return False
        if self.operand_order == "weight first":
            return True
        few = rows.shape[0] <= WORTH.get(rows.dtype, 0)
        return few and rows.device.type == "cpu" and not self.weight.requires_grad


def set_operand_order(network: nn.Module, order: OperandOrder) -> None:
    """Choose for every projection of ``network``: a matter of speed alone."""
    for module in network.modules():
        if isinstance(module, Projection):
            module.operand_order = order
