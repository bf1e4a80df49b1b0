"""What goes to workers and comes back; all of it can be pickled."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from freshkv.compare.cases import Case
from freshkv.compare.records import Header


@frozen(kw_only=True, eq=False)
class Job:
    """An experiment as its workers need it."""

    payload: bytes  #: experiment and Keep, pickled: a worker that lacks a module of theirs can say so
    threads: int  #: that each worker computes with
    matmul_precision: str  #: as torch is set in the process that asks
    deterministic: bool  #: likewise
    cpus: int  #: that Ray reserves for a worker
    gpus: int  #: likewise


@frozen(eq=False)
class Errand:
    """One call of a method of a worker."""

    method: str
    arguments: tuple[Any, ...]
    name: str  #: for people


@frozen(kw_only=True, eq=False)
class Answer:
    """What a method of a worker gives back."""

    value: Any
    files: tuple[tuple[str, bytes], ...] = ()  #: names and contents, to be left beside the results
    warnings: tuple[tuple[str, type[Warning]], ...] = ()  #: to be warned of where somebody sees them


@frozen(kw_only=True, eq=False)
class Readiness:
    """A worker that has loaded the model."""

    host: str
    pid: int
    header: Header  #: of the results, were they its own
    cases: tuple[Case, ...] | None  #: for the one that is asked first


@frozen(kw_only=True, eq=False)
class Done:
    """An errand that was done."""

    errand: Errand
    answer: Answer
    together: int  #: workers at work on the same machine meanwhile, at most, its own included
    alive: int  #: workers now


@frozen(kw_only=True, eq=False)
class Lost:
    """An errand that took the life of every worker that tried it."""

    errand: Errand
    reason: str
    attempts: int
    alive: int  #: workers now
