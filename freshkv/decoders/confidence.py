"""Commit a fixed number of tokens a step, the most certain first."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.decoder import Prediction
from freshkv.core.view import StepView
from freshkv.decoders.ranked import RankedDecoder


@frozen
class ConfidenceDecoder(RankedDecoder):
    """The ``tokens_per_step`` highest scores (LLaDA's low-confidence remasking, arXiv:2502.09992, section 2.4)."""

    name = "confidence"
    paper = "LLaDA, arXiv:2502.09992, section 2.4"

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """Nothing beyond ``tokens_per_step``."""
        return torch.zeros_like(prediction.positions)
