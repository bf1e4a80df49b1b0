"""Where the work of a command is done: here, or on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freshkv.core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from freshkv.compare.cluster.place import Place


def find_place(on: str, address: str | None, workers: int | None) -> Place:
    """What ``--on``, ``--address`` and ``--workers`` say.

    Raises InputError for a place that is none, options without ``--on ray``, and where Ray is not installed.
    """
    from freshkv.compare.cluster.connection import require_ray
    from freshkv.compare.cluster.place import HERE, PLACES, RAY, OnRay

    if on not in PLACES:
        raise InputError(f"There is no place {on!r} to run on.{did_you_mean(on, PLACES)} Known: {', '.join(PLACES)}.")
    if on == RAY:
        require_ray()
        return OnRay(address=address, workers=workers)
    given = [name for name, value in (("--address", address), ("--workers", workers)) if value is not None]
    if given:
        raise InputError(f"{' and '.join(given)} can only be given with --on ray; add that, or leave it out.")
    return HERE
