"""What the families' configurations check, in one wording: numbers that fit, features that are implemented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freshkv.core.errors import CheckpointError


def require_counts(config: object, *names: str) -> None:
    """Raise CheckpointError unless the named fields are whole numbers of at least 1."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"config: {name} is {value!r}; expected a whole number of at least 1.")


def require_positive(config: object, *names: str) -> None:
    """Raise CheckpointError unless the named fields are numbers above 0."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise CheckpointError(f"config: {name} is {value!r}; expected a number above 0.")


def require_divides(config: object, divisor: str, number: str) -> None:
    """Raise CheckpointError unless field ``divisor`` divides field ``number``."""
    smaller, larger = getattr(config, divisor), getattr(config, number)
    if larger % smaller != 0:
        raise CheckpointError(f"config: {divisor} is {smaller}, which does not divide {number}, {larger}.")


def require_head_width(config: object, width: str, heads: str) -> None:
    """Raise CheckpointError unless ``heads`` heads share ``width`` evenly, each of an even width."""
    require_divides(config, heads, width)
    head_width = getattr(config, width) // getattr(config, heads)
    if head_width % 2 != 0:  # rotary embedding turns pairs
        raise CheckpointError(f"config: {width} / {heads}, the head width, is {head_width}; expected an even number.")


def require_implemented(config: object, implemented: Mapping[str, tuple[Any, ...]]) -> None:
    """Raise CheckpointError unless fields that select an architecture have an ``implemented`` value, or are absent."""
    for name, values in implemented.items():
        value = getattr(config, name, values[0])
        if value not in values:
            expected = " or ".join(repr(known) for known in values)
            raise CheckpointError(
                f"config: {name} is {value!r}, which freshkv does not implement; expected {expected}. "
                f"Such a network needs a family of its own."
            )


def take_rope_theta(fields: dict[str, Any], default: float) -> float:
    """Remove what Transformers says of rotary embedding from ``fields``; the theta named there, or ``default``.

    Raises CheckpointError for any kind of scaling: freshkv rotates by plain positions.
    """
    # popped even where null: Transformers deprecates the attribute ``rope_scaling``
    given = [fields.pop(name, None) for name in ("rope_scaling", "rope_parameters")]
    theta = default
    for rope in filter(None, given):
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise CheckpointError(f"config: rotary embedding of type {kind!r} is not implemented; expected 'default'.")
        theta = rope.get("rope_theta", theta)
    return theta


def mask_token(config: object, vocabulary: int) -> int:
    """The mask token's id; raises CheckpointError if the configuration names none, or one outside ``vocabulary``."""
    token = getattr(config, "mask_token_id", None)
    if token is None:
        raise CheckpointError(
            "config: mask_token_id is missing, and decoding cannot start without a mask token. Add it to config.json, "
            "or pass it: freshkv.load(..., mask_token_id=...); LLaDA-8B has 126336, Dream-7B 151666."
        )
    return _token_id("mask_token_id", token, vocabulary)


def end_token(config: object, vocabulary: int) -> int | None:
    """The end-of-sequence token's id, the first of several, None if there is none.

    Raises CheckpointError if it is outside ``vocabulary``.
    """
    token = getattr(config, "eos_token_id", None)
    if isinstance(token, (list, tuple)):
        token = token[0] if token else None
    return None if token is None else _token_id("eos_token_id", token, vocabulary)


def _token_id(name: str, token: object, vocabulary: int) -> int:
    if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
        raise CheckpointError(f"config: {name} is {token!r}; expected a token id from 0 to {vocabulary - 1}.")
    return token
