"""Results of single requests on disk as they come, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import Factory, field, frozen

from freshkv.core.errors import ResultsError


@frozen(kw_only=True)
class AnswerRecord:
    """An answer, and what it took. Counts are this sequence's own; of passes that it shared it has its part."""

    key: str
    text: str
    prompt_tokens: int
    answer_tokens: int  #: up to the end token or stop string, which do not count
    response_tokens: int  #: every position of the response
    forwards: int  #: passes that the sequence took part in
    rows_computed: float  #: over all passes, mean over layers; padding does not count
    rows_total: int  #: what the passes would compute without a cache: forwards x (prompt + response)
    seconds: float  #: its part of the time of those passes
    batch: int  #: slots: the most sequences that are decoded together
    #: its part of those passes, 1/k of one with k sequences. Records from before packing: an equal part of the batch's
    passes: float = field(default=Factory(lambda self: self.forwards / self.batch, takes_self=True))


@frozen(kw_only=True)
class LikelihoodRecord:
    """The log-likelihood of a target."""

    key: str
    log_likelihood: float  #: nats
    is_greedy: bool
    forwards: int  #: uncached passes of one sequence
    seconds: float


Record = AnswerRecord | LikelihoodRecord
_KINDS: dict[str, type[Any]] = {"answer": AnswerRecord, "likelihood": LikelihoodRecord}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_line(record: Record) -> bytes:
    """A line of JSON, with its line end."""
    return (json.dumps({"kind": _NAMES[type(record)], **attrs.asdict(record)}, ensure_ascii=False) + "\n").encode()


def from_line(line: bytes) -> Record:
    """What ``to_line`` wrote. Raises ValueError for anything else."""
    try:
        fields = json.loads(line)
        record: Record = _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a record of an evaluation ({error})") from error
    return record


@frozen(eq=False)
class ResponseStore:
    """A folder of JSON Lines. Every process appends to a file of its own and reads all of them."""

    folder: Path
    _file: Path = field(init=False)

    @_file.default
    def _own_file(self) -> Path:
        return self.folder / f"responses-{uuid.uuid4().hex[:12]}.jsonl"

    def read(self) -> dict[str, Record]:
        """Key to record. A line that was cut off by a kill is left out; any other broken line is a ResultsError."""
        records: dict[str, Record] = {}
        for path in sorted(self.folder.glob("responses-*.jsonl")):
            for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
                if line.endswith(b"\n"):
                    record = _parse(path, number, line)
                    records[record.key] = record
        return records

    def append(self, records: Iterable[Record]) -> None:
        """Write, and wait until it is on disk. Raises ResultsError; what was there before stays."""
        data = b"".join(map(to_line, records))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._file.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResultsError(
                f"Cannot write to {self.folder}: {error.strerror}. It keeps what was written before; once it can be "
                "written again, the same evaluation continues from there."
            ) from error


def _parse(path: Path, number: int, line: bytes) -> Record:
    try:
        return from_line(line)
    except ValueError as error:
        raise ResultsError(
            f"{path}, line {number}: {error}. Name another folder, or remove this file to run its requests again."
        ) from error


def known(records: Mapping[str, Record], kind: type[Record]) -> dict[str, Record]:
    """Those of one kind."""
    return {key: record for key, record in records.items() if isinstance(record, kind)}
