"""Checks of what policies and decoders return, and that they wrote to nothing they were handed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

import attrs
import torch
from torch import Tensor

from freshkv.core.decoder import DECODER_NEEDS, Commit, Decoder
from freshkv.core.errors import DecoderError, FreshkvError, PolicyError, PolicyWroteError, did_you_mean
from freshkv.core.policy import SIGNALS, CachePolicy, Predicts, Probes
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


def describe(value: object) -> str:
    """``float32 (1, 5)`` for a tensor, the type's name for anything else."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


def check_tensor(
    value: object, dtype: torch.dtype, shape: tuple[int, ...], where: str, error: type[FreshkvError]
) -> None:
    """Raise ``error`` unless ``value`` is a tensor of this dtype and shape."""
    if not isinstance(value, Tensor) or value.dtype != dtype or tuple(value.shape) != shape:
        expected = f"{str(dtype).removeprefix('torch.')} {shape}"
        raise error(f"{where} returned {describe(value)}; expected {expected}.")


def check_selection(selection: object, shape: tuple[int, int], layers: int, where: str) -> Selection:
    """The selection itself, if its fields have the right dtypes and shapes. Raises PolicyError."""
    if not isinstance(selection, Selection):
        raise PolicyError(f"{where} returned {describe(selection)}; expected a Selection.")
    check_tensor(selection.predict, torch.bool, shape, where, PolicyError)
    if selection.refresh is not None:
        check_tensor(selection.refresh, torch.bool, shape, f"{where} (refresh)", PolicyError)
    if selection.visible is not None:
        layered = isinstance(selection.visible, Tensor) and selection.visible.shape == (shape[0], layers, shape[1])
        check_tensor(
            selection.visible,
            torch.bool,
            (shape[0], layers, shape[1]) if layered else shape,
            f"{where} (visible)",
            PolicyError,
        )
    if selection.watch is not None:
        check_tensor(selection.watch, torch.bool, shape, f"{where} (watch)", PolicyError)
    if selection.priority is not None:
        check_tensor(selection.priority, torch.float32, shape, f"{where} (priority)", PolicyError)
    _check_memory(selection.remember, shape, where, PolicyError)
    return selection


def check_needs(policy: CachePolicy, decoder: Decoder) -> None:
    """Raise PolicyError or DecoderError if one of them declares a need that the core does not know."""
    _check_choice(policy, "predicts", get_args(Predicts))
    _check_choice(policy, "probes", get_args(Probes))
    checks: tuple[tuple[CachePolicy | Decoder, frozenset[str], type[FreshkvError]], ...] = (
        (policy, SIGNALS, PolicyError),
        (decoder, DECODER_NEEDS, DecoderError),
    )
    for plugin, known, error in checks:
        for need in sorted(plugin.needs - known):
            hint = did_you_mean(need, known)
            raise error(f"{type(plugin).__name__}.needs names '{need}'.{hint} Known: {', '.join(sorted(known))}.")


def _check_choice(policy: CachePolicy, name: str, known: tuple[str, ...]) -> None:
    value = getattr(policy, name, known[0])  # only layer-wise policies have it
    if value not in known:
        choices = " or ".join(map(repr, known))
        raise PolicyError(f"{type(policy).__name__}.{name} is {value!r}; expected {choices}.")


def check_commit(commit: object, shape: tuple[int, int], where: str, *, revocable: bool) -> Commit:
    """The commit itself, if its fields have the right dtypes and shapes. Raises DecoderError."""
    if not isinstance(commit, Commit):
        raise DecoderError(f"{where} returned {describe(commit)}; expected a Commit.")
    check_tensor(commit.positions, torch.bool, shape, f"{where} (positions)", DecoderError)
    check_tensor(commit.tokens, torch.int64, shape, f"{where} (tokens)", DecoderError)
    if commit.remask is not None:
        if not revocable:
            raise DecoderError(f"{where} masks tokens again; a decoder that does so must say revocable = True.")
        check_tensor(commit.remask, torch.bool, shape, f"{where} (remask)", DecoderError)
    _check_memory(commit.remember, shape, where, DecoderError)
    return commit


def _check_memory(memory: object, shape: tuple[int, int], where: str, error: type[FreshkvError]) -> None:
    if not isinstance(memory, Mapping):
        raise error(f"{where} (remember) returned {describe(memory)}; expected a mapping of names to tensors.")
    for name, value in memory.items():
        if not isinstance(value, Tensor) or tuple(value.shape[:2]) != shape:
            raise error(
                f"{where} (remember[{name!r}]) returned {describe(value)}; expected a tensor {(*shape, '...')}."
            )


def verified_positions(decoder: Decoder, view: StepView) -> Tensor | None:
    """What ``decoder.verify`` answers, if it is such a mask: that it keeps to the block is seen on the host."""
    where = f"{type(decoder).__name__}.verify"
    with guarded(where, view, DecoderError):
        positions = decoder.verify(view)
    if positions is None:
        return None
    check_tensor(positions, torch.bool, view.shape, where, DecoderError)
    return positions


@contextmanager
def guarded(
    where: str, view: StepView, error: type[FreshkvError], handed: Mapping[str, Tensor] | None = None
) -> Iterator[None]:
    """Turn whatever a plugin raises into ``error``, and raise it, too, if the plugin wrote to what it was handed."""
    tensors = _tensors_of(view) | dict(handed or {})
    versions = {name: tensor._version for name, tensor in tensors.items()}
    failure: Exception | None = None
    try:
        yield
    except Exception as cause:  # a plugin may raise anything
        failure = cause
    written = [name for name, tensor in tensors.items() if tensor._version != versions[name]]
    if written:
        raise (PolicyWroteError if error is PolicyError else error)(
            f"{where} wrote to {', '.join(written)}; what a policy or decoder is handed is read-only: clone it."
        ) from failure
    if isinstance(failure, FreshkvError):
        raise failure
    if failure is not None:
        raise error(f"{where} raised {type(failure).__name__} in step {view.step}: {failure}") from failure


_VIEW_FIELDS = tuple(field.name for field in attrs.fields(StepView))


def _tensors_of(view: StepView) -> dict[str, Tensor]:
    found = {}
    for field in _VIEW_FIELDS:
        value = getattr(view, field)
        if isinstance(value, Tensor):
            found[f"view.{field}"] = value
        elif isinstance(value, Mapping):
            found |= {f"view.{field}[{name!r}]": tensor for name, tensor in value.items()}
    return found
