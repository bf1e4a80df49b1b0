"""What every run is given besides prompts, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence

from freshkv.core.errors import InputError
from freshkv.core.network import Network, NetworkSpec


def check_model(model: object) -> None:
    """Raise InputError unless ``model`` is a network."""
    if not isinstance(model, Network):
        hint = f" Load it first: freshkv.load({model!r})." if isinstance(model, str) else ""
        raise InputError(f"model is a {type(model).__name__}; expected a network, as freshkv.load returns it.{hint}")


def eos_of(stop: bool, given: int | None, spec: NetworkSpec) -> int | None:
    """The token that ends a sequence, None where nothing does. Raises InputError for one that cannot."""
    if not stop:
        return None
    eos = spec.eos_token_id if given is None else given
    if eos is None:
        raise InputError("stop_at_eos needs an EOS token, and the model names none: pass eos_token_id.")
    if not 0 <= eos < spec.vocabulary:
        raise InputError(f"eos_token_id is {eos}; the model's vocabulary is 0 to {spec.vocabulary - 1}.")
    if eos == spec.mask_token_id:
        raise InputError(f"eos_token_id is {eos}, the model's mask token: a sequence could never end there.")
    return eos


def seeds_of(seed: int | Sequence[int], batch: int) -> tuple[int, ...]:
    """One for each sequence. Raises InputError for another number of them."""
    if isinstance(seed, int):
        return (seed,) * batch
    seeds = _whole_numbers(seed)
    if len(seeds) != batch:
        raise InputError(f"seed has {len(seeds)} numbers for {batch} sequences; expected one for all, or one for each.")
    return seeds


def _whole_numbers(seed: object) -> tuple[int, ...]:
    if not isinstance(seed, (list, tuple)) or not all(isinstance(each, int) for each in seed):
        raise InputError(f"seed is {seed!r}; expected a whole number, or a list with one for each sequence.")
    return tuple(seed)
