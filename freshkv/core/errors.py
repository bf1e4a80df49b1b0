"""Every error freshkv raises on purpose: what went wrong, where, what was expected, what to do next."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from freshkv.core.run import Run


class FreshkvError(Exception):
    """Base class of all errors that freshkv raises on purpose.

    ``partial`` is the Run up to the failing step, where the error stopped one.
    """

    partial: Run | None = None


class InputError(FreshkvError, ValueError):
    """An argument of a public function has a wrong shape, dtype or value."""


class SpecError(FreshkvError, ValueError):
    """A spec string such as ``d2cache:current_k=16`` cannot be turned into an object."""


class UnknownNameError(FreshkvError, LookupError):
    """A policy, decoder, model or task of this name does not exist."""


class PolicyError(FreshkvError, ValueError):
    """A cache policy returned something that is not a valid answer."""


class PolicyWroteError(PolicyError):
    """A cache policy wrote to what it was handed: whatever comes of that state means nothing."""


class DecoderError(FreshkvError, ValueError):
    """A decoder returned something that is not a valid answer."""


class CheckpointError(FreshkvError, ValueError):
    """A checkpoint is missing, truncated, or of another architecture."""


class NumericalError(FreshkvError, ArithmeticError):
    """The model produced NaN where a number was needed."""


class DeviceMemoryError(FreshkvError, MemoryError):
    """Not even one sequence fits the memory of a device."""


class PluginError(FreshkvError, RuntimeError):
    """A plugin could not be loaded or clashes with another one."""


class ResultsError(FreshkvError, RuntimeError):
    """A results file cannot be read, written, or belongs to another experiment."""


class ClusterError(FreshkvError, RuntimeError):
    """Ray cannot be reached, its workers cannot be started or differ, or they die of whatever they do."""


class WorkLostError(ClusterError):
    """Works ended each worker that tried them; everything else is done and kept."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'prefix'?``, or nothing if no name is near."""
    near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    hint = " or ".join(f"'{candidate}'" for candidate in near)
    return f" Did you mean {hint}?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """The error for a name that is not registered, with the nearest known names.

    >>> str(unknown_name("policy", "prefx", ["none", "prefix"]))
    "Unknown policy 'prefx'. Did you mean 'prefix'? Known: none, prefix."
    """
    names = sorted(known)
    return UnknownNameError(f"Unknown {kind} '{name}'.{did_you_mean(name, names)} Known: {', '.join(names)}.")
