"""Muon for the matrices of the layers, AdamW for everything else, and a running average of the weights."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from freshkv.models.backbone import LlamaLikeModel
from training.recipe import AVERAGE, MATRIX_RATE, TABLE_RATE

#: coefficients of the quintic Newton-Schulz iteration (Keller Jordan, 2024)
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrices: Tensor) -> Tensor:
    """``matrices`` [count, rows, columns] with all singular values moved close to 1."""
    tall = matrices.shape[1] > matrices.shape[2]
    result = matrices.mT if tall else matrices
    result = result / (result.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(5):
        gram = result @ result.mT
        result = a * result + (b * gram + c * gram @ gram) @ result
    return result.mT if tall else result


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is made orthogonal; equal shapes are handled together."""

    def __init__(self, matrices: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update."""
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                by_shape[matrix.shape].append(matrix)
            for (rows, columns), matrices in by_shape.items():
                updates = orthogonalized(torch.stack([self._momentum(matrix, group) for matrix in matrices]))
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                torch._foreach_add_(matrices, list(updates), alpha=-scale)

    def _momentum(self, matrix: nn.Parameter, group: dict[str, float]) -> Tensor:
        state = self.state[matrix]
        average = state.setdefault("average", torch.zeros_like(matrix))
        average.lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(average, group["momentum"])


def build_optimizers(model: LlamaLikeModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embedding, head, norms and biases."""
    tables = {id(model.embedding.weight), id(model.head.weight)}
    parameters = list(model.parameters())
    matrices = [one for one in parameters if one.dim() == 2 and id(one) not in tables]
    chosen = {id(one) for one in matrices}
    rest = [one for one in parameters if id(one) not in chosen]
    return [Muon(matrices, lr=MATRIX_RATE), torch.optim.AdamW(rest, lr=TABLE_RATE, betas=(0.9, 0.98), weight_decay=0.0)]


class RunningAverage:
    """A running average of a model's weights: calmer than the weights themselves."""

    def __init__(self, model: nn.Module) -> None:
        self.values = [parameter.detach().clone() for parameter in model.parameters()]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move a little toward the weights of ``model``."""
        torch._foreach_lerp_(self.values, list(model.parameters()), 1 - AVERAGE)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give ``model`` the average as its weights."""
        for parameter, value in zip(model.parameters(), self.values, strict=True):
            parameter.copy_(value)
