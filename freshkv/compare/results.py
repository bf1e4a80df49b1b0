"""The content of a results file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from freshkv.compare.records import FORMAT, FailureRecord, Header, SequenceRecord, from_line
from freshkv.core.errors import ResultsError


@frozen(kw_only=True, eq=False)
class Results:
    """An experiment's header, and what has been written so far."""

    path: Path
    header: Header
    sequences: tuple[SequenceRecord, ...]
    failures: tuple[FailureRecord, ...]  #: of all attempts, in order

    @property
    def answers(self) -> tuple[SequenceRecord, ...]:
        """The first decoding of each problem by each entry; repeats only measure time once more."""
        return tuple(record for record in self.sequences if record.repeat == 0)

    @property
    def open_failures(self) -> Mapping[tuple[str, str], FailureRecord]:
        """Entry to its latest failure, where no later attempt made good for it."""
        done = {(record.entry, record.case) for record in self.sequences}
        return {failure.entry: failure for failure in self.failures if (failure.entry, failure.case) not in done}


def read_results(path: str | Path) -> Results:
    """Read a results file; an unfinished last line is left out. Raises ResultsError if it is none or damaged."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"Cannot read results from {path}: {error.strerror}.") from error
    results, _ = parse_results(path, data)
    return results


def parse_results(path: Path, data: bytes) -> tuple[Results, int]:
    """Results from the content of a file, and how many bytes of it are whole lines that could be read.

    A last line that was cut off is no error: the process that wrote it was killed.
    """
    *lines, _cut_off = data.split(b"\n")
    header = _read_header(path, lines[0] if lines else data)
    size = len(lines[0]) + 1
    sequences, failures = [], []
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = from_line(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise ResultsError(f"{path}, line {number} is damaged: {error}.") from error
        if isinstance(record, SequenceRecord):
            sequences.append(record)
        elif isinstance(record, FailureRecord):
            failures.append(record)
        else:
            raise ResultsError(f"{path}, line {number} is a second header.")
        size += len(line) + 1
    return Results(path=path, header=header, sequences=tuple(sequences), failures=tuple(failures)), size


def _read_header(path: Path, line: bytes) -> Header:
    try:
        header = from_line(line)
    except ValueError:
        header = None
    if not isinstance(header, Header) or header.format != FORMAT:
        raise ResultsError(f"{path} is not a results file of this version (its first line is no {FORMAT} header).")
    return header
