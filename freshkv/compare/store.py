"""A results file that is being written: every record is on disk before the next one is worked on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

from attrs import evolve

from freshkv.compare.records import PREAMBLE, FailureRecord, Header, SequenceRecord, from_line, to_line
from freshkv.compare.results import Results, parse_results
from freshkv.core.errors import ResultsError

if sys.platform != "win32":
    import fcntl


class ResultsFile:
    """Appends records; made by ``open_results``."""

    def __init__(self, path: Path, descriptor: int, header: Header) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = 0
        self.before = self._take_up(header)  #: what earlier runs left
        self._kept = len(self.before.sequences)

    def append(self, records: Iterable[SequenceRecord | FailureRecord]) -> None:
        """Write ``records`` and wait until they are on disk. Raises ResultsError; what was there before stays."""
        records = tuple(records)
        self._write(b"".join(map(to_line, records)))
        self._kept += sum(isinstance(record, SequenceRecord) for record in records)

    def _take_up(self, header: Header) -> Results:
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            data = file.read()
        if PREAMBLE.startswith(data) or (data.startswith(PREAMBLE) and b"\n" not in data):
            os.ftruncate(self._descriptor, 0)  # new, or killed while the first line was being written
            self._kept = 0
            self._write(to_line(header))
            return Results(path=self._path, header=header, sequences=(), failures=())
        results, size = parse_results(self._path, data)
        check_same(self._path, results.header, header)
        results, self._size = drop_cut_batch(results, data[:size])
        os.ftruncate(self._descriptor, self._size)
        return results

    def _write(self, data: bytes) -> None:
        left = data
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):  # a partial line does no harm: the next run drops it
                os.ftruncate(self._descriptor, self._size)
            raise ResultsError(
                f"Cannot write to {self._path}: {error.strerror}. It keeps the {self._kept} sequences written before; "
                "once it can be written again, the same experiment continues from there."
            ) from error
        self._size += len(data)


def drop_cut_batch(results: Results, data: bytes) -> tuple[Results, int]:
    """``results`` without the sequences of a batch that was cut off while it was written, and the bytes that are left.

    The batch is decoded again as a whole: its other half alone would be measured in another batch than was asked for.
    """
    lines = data.splitlines(keepends=True)
    if not results.sequences or not isinstance(from_line(lines[-1]), SequenceRecord):
        return results, len(data)
    size = results.header.experiment["batch_size"]
    batches = [
        (record.entry, record.task, record.seed, record.problem // size, record.repeat) for record in results.sequences
    ]
    last = sum(1 for _ in takewhile(batches[-1].__eq__, reversed(batches)))
    if last >= results.sequences[-1].batch:
        return results, len(data)
    return evolve(results, sequences=results.sequences[:-last]), len(data) - sum(map(len, lines[-last:]))


@contextmanager
def open_results(path: Path, header: Header) -> Iterator[ResultsFile]:
    """Open ``path`` to be written or continued; only one process at a time can.

    Raises ResultsError for a path that cannot be written, a file of another kind or experiment, and one in use. A file
    that is refused is left as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ResultsError(f"Cannot write to {path}: {error.strerror}. Choose another output file.") from error
    try:
        _lock(path, descriptor)
        yield ResultsFile(path, descriptor, header)
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int) -> None:
    if sys.platform == "win32":
        return  # it has no flock
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ResultsError(
            f"{path} is being written by another process. Wait for it, or choose another file."
        ) from error
    except OSError:
        return  # some network file systems cannot lock


def check_same(path: Path, there: Header, here: Header) -> None:
    """Raise ResultsError, naming what differs, unless both headers are of one experiment."""
    differences = header_differences(there, here)
    if differences:
        raise ResultsError(
            f"{path} belongs to another experiment: {'; '.join(differences)}. "
            "Choose another output file, or remove this one."
        )


def header_differences(there: Header, here: Header) -> list[str]:
    """What makes two headers those of different experiments, in words."""
    return [
        *_differences(there.experiment, here.experiment, ""),
        *_differences(there.environment, here.environment, ""),
    ]


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name in [*here, *(name for name in there if name not in here)]:
        old, new = there.get(name), here.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name} is {_shown(old)} there and {_shown(new)} here"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
