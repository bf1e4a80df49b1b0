"""See the true drift of every cached row, and refresh the rows with the largest."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.view import StepView
from freshkv.policies.budget import BudgetedPolicy

_LOWEST = torch.finfo(torch.float32).min


@frozen
class OraclePolicy(BudgetedPolicy):
    """The best that a policy of its budget could do by that measure: no cache, but a yardstick. Exact when budget = 1.

    An uncached forward runs beside it in every step and tells how far the keys and values of each row are from what
    they should be on this canvas. Its time is that of two runs.
    """

    name = "oracle"
    needs = frozenset({"confidence", "drift"})

    def rank(self, view: StepView) -> tuple[Tensor, Tensor]:
        """The last known confidence of the position that a row predicts; the row's drift, mean over layers."""
        confidence = view.confidence.clamp(min=_LOWEST)  # -inf where never predicted
        return view.to_rows(confidence, _LOWEST), view.signals["drift"].mean(dim=1)
