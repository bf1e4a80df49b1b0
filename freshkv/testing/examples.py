"""What tests of one policy need again and again: a small problem, columns of a mask, what the core asked in a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from freshkv.core.decoder import Decoder
from freshkv.core.policy import CachePolicy
from freshkv.testing.networks import Family, NetworkShape
from freshkv.testing.problems import Problem
from freshkv.testing.wrapping import wrapped


def example_problem(family: Family = "llada", *, block_length: int = 4) -> Problem:
    """Three prompts of up to six tokens, two of them padded, and twelve positions to decode, in four layers.

    ``block_length`` divides 12. For a single sequence without padding: ``example_problem().alone(0)``, whose response
    is in the columns 6 to 17.
    """
    return Problem(
        shape=NetworkShape(family=family, layers=4),
        input_ids=torch.randint(0, 32, (3, 6), generator=torch.Generator().manual_seed(7)),
        is_valid=torch.arange(6) >= torch.tensor([[0], [2], [4]]),
        gen_length=12,
        block_length=block_length,
        seeds=(1, 2, 3),
    )


def columns(mask: Tensor) -> list[int]:
    """Where a mask of one sequence, bool [seq], is True."""
    where: list[int] = mask.nonzero()[:, 0].tolist()
    return where


def asked(
    policy: CachePolicy, problem: Problem, decoder: str | Decoder = "confidence", *, method: str = "select"
) -> list[tuple[Any, ...]]:
    """Every question that the core put to ``policy`` in a run, in order: what it handed over, and last the answer."""
    questions: list[tuple[Any, ...]] = []

    def recording(original: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            given = original(*arguments)
            questions.append((*arguments, given))
            return given

        return answer

    problem.run(wrapped(policy, **{method: recording}), decoder)
    if not questions:
        raise AssertionError(f"The core never asked {type(policy).__name__}.{method}.")
    return questions
