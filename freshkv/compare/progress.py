"""How far an experiment is, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attrs import frozen

from freshkv.compare.records import FailureRecord

#: workers are awaited; budgets are measured; sequences are decoded
Stage = Literal["starting", "budgets", "decoding"]


@frozen(kw_only=True)
class Progress:
    """How far an experiment is."""

    path: Path  #: of the results; while workers are awaited perhaps only their folder
    total: int  #: sequences, those of entries that failed left out; 0 before the stage of decoding
    before: int  #: of them, those that earlier runs left
    done: int  #: of them, those that are on disk
    doing: str  #: what comes next, or what a worker has just done
    failure: FailureRecord | None = None  #: an entry that has just stopped
    stage: Stage = "decoding"
    workers: int | None = None  #: that are alive; None where this process does the work itself
    note: str | None = None  #: something that has just happened, such as the death of a worker


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """For those who do not watch."""


def preparation(path: Path, stage: Stage, doing: str, workers: int | None = None, note: str | None = None) -> Progress:
    """The progress before the first sequence."""
    return Progress(path=path, total=0, before=0, done=0, doing=doing, stage=stage, workers=workers, note=note)
