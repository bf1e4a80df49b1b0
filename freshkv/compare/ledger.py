"""What of an experiment is done and what is left, on disk and for whoever watches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from freshkv.compare.progress import OnProgress, Progress
from freshkv.compare.records import FailureRecord, SequenceRecord
from freshkv.compare.schedule import Work, WorkKey
from freshkv.compare.store import ResultsFile


class Ledger:
    """Writes outcomes to the results file, and counts them. The order in which works are done is not its concern."""

    def __init__(self, file: ResultsFile, path: Path, works: Iterable[Work], on_progress: OnProgress) -> None:
        self._file, self._path, self._on_progress = file, path, on_progress
        self._left: dict[tuple[WorkKey, ...], Work] = {work.keys: work for work in works}
        self._before = self._done = len(file.before.sequences)
        self.failed: set[tuple[str, str]] = set()  #: entries that raised, and are left out since

    @property
    def next_work(self) -> Work | None:
        """The first that is left."""
        return next(iter(self._left.values()), None)

    def keep(self, work: Work, records: Sequence[SequenceRecord]) -> None:
        """Write what ``work`` has given."""
        self._file.append(records)
        self._left.pop(work.keys, None)  # it is gone already where its entry failed at another problem meanwhile
        self._done += len(records)

    def drop(self, work: Work, failure: FailureRecord) -> None:
        """Write why the entry of ``work`` failed, and leave it out from now on; only its first failure counts."""
        if work.entry.key in self.failed:
            return
        self._file.append([failure])
        self.failed.add(work.entry.key)
        self._left = {keys: other for keys, other in self._left.items() if other.entry.key != work.entry.key}
        self.report(f"{work.entry} is left out", failure=failure)

    def report(
        self,
        doing: str,
        *,
        failure: FailureRecord | None = None,
        workers: int | None = None,
        note: str | None = None,
    ) -> None:
        """Tell whoever watches how far the experiment is."""
        progress = Progress(
            path=self._path,
            total=self._done + sum(len(work.cases) for work in self._left.values()),
            before=self._before,
            done=self._done,
            doing=doing,
            failure=failure,
            workers=workers,
            note=note,
        )
        self._on_progress(progress)
