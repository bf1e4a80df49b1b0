"""Refresh rows drawn at random: what knowing nothing gives."""

from __future__ import annotations

from hashlib import blake2b

import torch
from attrs import field, frozen
from attrs.validators import instance_of
from torch import Tensor

from freshkv.core.view import StepView
from freshkv.policies.budget import BudgetedPolicy


@frozen
class RandomPolicy(BudgetedPolicy):
    """The floor for policies of its budget, as ``oracle`` is the ceiling. Exact when budget = 1.

    The draw is a function of the seed, the sequence's prompt and its step alone: the same in any batch and with any
    padding.
    """

    name = "random"

    seed: int = field(default=0, validator=instance_of(int))

    def rank(self, view: StepView) -> tuple[Tensor, Tensor]:
        """Two uniform numbers for each row."""
        tokens, valid, is_prompt = view.tokens.cpu(), view.is_valid.cpu(), view.is_prompt.cpu()
        drawn = torch.zeros(2, *view.shape)
        for place, real in enumerate(valid):
            prompt = tokens[place, real & is_prompt[place]].tolist()
            generator = torch.Generator().manual_seed(self._seed_of(prompt, view.step))
            drawn[:, place, real] = torch.rand(2, int(real.sum()), generator=generator)
        to_predict, to_refresh = drawn.to(view.tokens.device)
        return to_predict, to_refresh

    def _seed_of(self, prompt: list[int], step: int) -> int:
        digest = blake2b(f"{self.seed} {step} {prompt}".encode(), digest_size=7)
        return int.from_bytes(digest.digest())
