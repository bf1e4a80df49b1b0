"""The lines of a results file: a header, then sequences and failures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import cattrs
from attrs import frozen

from freshkv.compare.lineup import Lineup, Setting, full_settings
from freshkv.core.cost import Cost

FORMAT = "freshkv-results-2"

_converter = cattrs.Converter(forbid_extra_keys=True)


@frozen(kw_only=True)
class Header:
    """Everything needed to run an experiment again. A file is continued only where both parts are equal."""

    created: str  #: UTC, ISO 8601
    model: str  #: as it was given; the experiment holds a hash of it
    experiment: Mapping[str, Any]
    environment: Mapping[str, Any]
    lineup: Lineup | None = None  #: None: every policy runs in every setting
    format: str = FORMAT

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Tasks x decoders in order, each with the policies that run in it."""
        return full_settings(self.experiment) if self.lineup is None else self.lineup.settings


@frozen(kw_only=True)
class SequenceRecord:
    """One problem decoded once by one entry. In a batch, seconds and rows are an equal share of the batch's."""

    task: str
    seed: int
    problem: int  #: index among those of task and seed
    policy: str  #: spec string in normal form
    decoder: str  #: likewise
    correct: bool
    text: str  #: the response
    response: tuple[int, ...]  #: its token ids
    canvas: int  #: columns: prompt, padding and response
    forwards: int  #: passes that this sequence took part in
    rows_computed: float  #: over all passes, mean over layers
    tokens_produced: int  #: up to and including an EOS that ends the response
    seconds: float
    peak_bytes: int  #: of the batch
    cache_bytes: int  #: likewise
    batch: int  #: sequences decoded together
    cost: Cost | None = None  #: an equal share of the batch's; None: not counted
    repeat: int = 0  #: which decoding of this problem by this entry; those after the first only count as times
    workers: int = 1  #: of the experiment, at work on its machine meanwhile, its own included

    @property
    def entry(self) -> tuple[str, str]:
        """Policy and decoder."""
        return self.policy, self.decoder

    @property
    def case(self) -> tuple[str, int, int]:
        """Task, seed and index of the problem."""
        return self.task, self.seed, self.problem


@frozen(kw_only=True)
class FailureRecord:
    """An entry that stopped with an error, and the problem that it stopped at."""

    task: str
    seed: int
    problem: int
    policy: str
    decoder: str
    error: str  #: type of the exception
    message: str

    @property
    def entry(self) -> tuple[str, str]:
        """Policy and decoder."""
        return self.policy, self.decoder

    @property
    def case(self) -> tuple[str, int, int]:
        """Task, seed and index of the problem."""
        return self.task, self.seed, self.problem


Record = Header | SequenceRecord | FailureRecord

_KINDS: dict[str, type[Any]] = {"header": Header, "sequence": SequenceRecord, "failure": FailureRecord}
_NAMES = {cls: name for name, cls in _KINDS.items()}

#: how the first line of every results file begins
PREAMBLE = f'{{"kind": "header", "format": "{FORMAT}"'.encode()


def to_line(record: Record) -> bytes:
    """One line of JSON, with its line end."""
    fields = attrs.asdict(record)
    front = {"kind": _NAMES[type(record)]}
    if isinstance(record, Header):
        front["format"] = fields.pop("format")
    return (json.dumps(front | fields, ensure_ascii=False) + "\n").encode()


def from_line(line: bytes) -> Record:
    """What ``to_line`` wrote. Raises ValueError for anything else."""
    fields = json.loads(line)
    if not isinstance(fields, dict) or fields.get("kind") not in _KINDS:
        raise ValueError("not a record of a results file")
    kind = _KINDS[fields.pop("kind")]
    try:
        record: Record = _converter.structure(fields, kind)
    except cattrs.BaseValidationError as error:
        raise ValueError("; ".join(cattrs.transform_error(error))) from error
    return record


def rows_share(records: Sequence[SequenceRecord]) -> float:
    """Rows computed in a forward pass, as a share of the canvas; at least one record, in any order."""
    return math.fsum(r.rows_computed for r in records) / sum(r.forwards * r.canvas for r in records)
