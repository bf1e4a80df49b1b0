"""One decision for all processes that hold a network together: that of the first.

Each of them asks the policy and the decoder, and they could differ in a last digit: sums over rows or tokens have no
fixed order on a GPU. Then one process would wait for rows that another does not compute. So rows, positions and tokens
are those of the first process; a step sends a few masks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from torch import Tensor

from freshkv.core.decoder import Commit
from freshkv.core.division import Division
from freshkv.core.errors import InputError
from freshkv.core.plan import StepPlan

if TYPE_CHECKING:
    from freshkv.core.loop import RunOptions
    from freshkv.core.request import Request
    from freshkv.core.state import RunState


def agreed(division: Division, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """``tensors`` of bool or whole numbers as the first process has them; shapes and dtypes stay, None stays None."""
    given = [tensor for tensor in tensors if tensor is not None]
    if division.parts == 1 or not given:
        return list(tensors)
    wide = torch.long if any(tensor.dtype == torch.long for tensor in given) else torch.uint8
    told = division.first(torch.cat([tensor.flatten().to(wide) for tensor in given]))
    parts = iter(torch.split(told, [tensor.numel() for tensor in given]))
    return [None if tensor is None else next(parts).to(tensor.dtype).view(tensor.shape) for tensor in tensors]


def agreed_mask(division: Division, mask: Tensor | None) -> Tensor | None:
    """``mask``, bool of any shape, or None."""
    return agreed(division, [mask])[0]


def agreed_plan(division: Division, plan: StepPlan) -> StepPlan:
    """What goes through the network."""
    if division.parts == 1:
        return plan
    names = ("rows", "predict", "added", "visible", "watch")
    told: Any = agreed(division, [getattr(plan, name) for name in names])
    return evolve(plan, **dict(zip(names, told, strict=True)))


def agreed_commit(division: Division, commit: Commit) -> Commit:
    """Which tokens are fixed or taken back."""
    if division.parts == 1:
        return commit
    names = ("positions", "tokens", "remask")
    told: Any = agreed(division, [getattr(commit, name) for name in names])
    return evolve(commit, **dict(zip(names, told, strict=True)))


def check_same_run(division: Division, start: RunState, options: RunOptions) -> None:
    """Raise InputError in every process unless all were asked for the same run."""
    if division.parts == 1:
        return
    facts = (
        *_decided_by(options),
        *(start.gen_length, start.block_length, start.eos_token_id, tuple(start.is_valid.shape)),
    )
    digest = sha256(repr(facts).encode())
    for tensor in (start.tokens, start.is_valid):
        digest.update(tensor.cpu().numpy().tobytes())
    _check_same(division, digest.digest(), start.is_valid.device)


def check_same_requests(
    division: Division, requests: Sequence[Request], options: RunOptions, device: torch.device
) -> None:
    """The same for all requests that are to be decoded one after the other."""
    if division.parts > 1:
        _check_same(division, sha256(repr((_decided_by(options), list(requests))).encode()).digest(), device)


def _decided_by(options: RunOptions) -> tuple[Any, ...]:
    return (options.policy.spec, options.decoder.spec, options.sampling, options.seeds)


def _check_same(division: Division, digest: bytes, device: torch.device) -> None:
    mine = torch.tensor([int.from_bytes(digest[:8], signed=True)], device=device)
    differs = division.total((mine != division.first(mine)).long())
    if bool(differs.any()):
        raise InputError(
            f"The {division.parts} processes that hold the model together were given different prompts or options. "
            "Every process must call it with the same ones."
        )
