"""What the host must know of a step behind its commit, and the errors that it shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.decoder import Commit
from freshkv.core.errors import DecoderError
from freshkv.core.predict import Predicted
from freshkv.core.state import RunState


@frozen
class Progress:
    """For each sequence: whether its active block, and whether all of it, still has positions to decide."""

    block_unfinished: tuple[bool, ...]
    unfinished: tuple[bool, ...]
    broken: tuple[bool, ...]  #: its logits are no numbers: what was committed means nothing


#: what ``step_facts`` tells, in its order
_FACTS = ("broken", "elsewhere", "bad_token", "nothing", "bad_remask", "block_unfinished", "unfinished")


def step_facts(before: RunState, after: RunState, predicted: Predicted, commit: Commit) -> Tensor:
    """What ``read_progress`` reads, bool [facts, batch], on the device of the run."""
    positions, tokens = commit.positions, commit.tokens
    unusable = (tokens < 0) | (tokens >= before.vocabulary) | (tokens == before.mask_token_id)
    never = torch.zeros(before.batch, dtype=torch.bool, device=tokens.device)
    still_open = after.is_open
    facts: dict[str, Tensor] = {
        "broken": predicted.broken.any(dim=SEQ),
        "elsewhere": (positions & ~predicted.in_block.positions).any(dim=SEQ),
        "bad_token": (positions & unusable).any(dim=SEQ),
        "nothing": ~positions.any(dim=SEQ),
        "bad_remask": never if commit.remask is None else (commit.remask & _not_decided(before)).any(dim=SEQ),
        "block_unfinished": (still_open & before.in_block).any(dim=SEQ),
        "unfinished": still_open.any(dim=SEQ),
    }
    return torch.stack([facts[name] for name in _FACTS])


def read_progress(facts: Tensor, before: RunState, decoder: str) -> Progress:
    """The step's progress, of ``facts`` on the host; raise DecoderError for what must not be, where logits are numbers.

    ``before`` is the state that the step began with, ``decoder`` the name to complain of.
    """
    host = dict(zip(_FACTS, facts.tolist(), strict=True))
    broken = host.pop("broken")
    progress = Progress(tuple(host.pop("block_unfinished")), tuple(host.pop("unfinished")), tuple(broken))
    sound = {name: [flag and not nan for flag, nan in zip(flags, broken, strict=True)] for name, flags in host.items()}
    where = {name: _where(flags, before) for name, flags in sound.items() if any(flags)}
    if "elsewhere" in where:
        raise DecoderError(
            f"{decoder}.decode committed positions that were not predicted, not masked or outside the active block, "
            f"in {where['elsewhere']}; choose among prediction.positions."
        )
    if "bad_token" in where:
        raise DecoderError(
            f"{decoder}.decode committed the mask token or an id outside 0 to {before.vocabulary - 1}, "
            f"in {where['bad_token']}."
        )
    if "bad_remask" in where:
        raise DecoderError(
            f"{decoder}.decode masked positions that were not decided or lie outside the active block, "
            f"in {where['bad_remask']}."
        )
    if "nothing" in where:
        raise DecoderError(f"{decoder}.decode committed nothing in {where['nothing']}; expected at least one position.")
    return progress


def nan_logits(progress: Progress, state: RunState) -> str:
    """The message for sequences of ``state``, before the step, whose logits are no numbers."""
    return f"The model's logits are NaN in {_where(progress.broken, state)} (or infinite)."


def _not_decided(state: RunState) -> Tensor:
    return state.is_masked | ~state.in_block


def _where(flags: Sequence[bool], state: RunState) -> str:
    guilty = [place for place, flag in enumerate(flags) if flag]
    names = [str(state.sequence[place].item()) for place in guilty]
    steps = sorted({state.step[place] for place in guilty})
    return f"sequence {', '.join(names)} at step {', '.join(map(str, steps))}"
