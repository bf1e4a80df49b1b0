"""Run an experiment, or what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from freshkv.compare.cases import all_cases
from freshkv.compare.experiment import Experiment
from freshkv.compare.measure import Subject, decode, to_records
from freshkv.compare.provenance import default_path, describe
from freshkv.compare.records import FailureRecord
from freshkv.compare.results import Results, read_results
from freshkv.compare.schedule import Work, plan_work
from freshkv.compare.store import ResultsFile, open_results
from freshkv.compare.threads import cpu_threads
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer


@frozen(kw_only=True)
class Progress:
    """How far an experiment is."""

    path: Path  #: of the results
    total: int  #: sequences, those of entries that failed left out
    before: int  #: of them, those that earlier runs left
    done: int  #: of them, those that are on disk
    doing: str  #: what comes next
    failure: FailureRecord | None = None  #: an entry that has just stopped


OnProgress = Callable[[Progress], None]


def run_experiment(
    experiment: Experiment, path: str | Path | None = None, on_progress: OnProgress | None = None
) -> Results:
    """Decode what ``path`` does not hold yet, and return all results.

    Every entry is warmed up with a run that does not count; then entries take turns at each problem. An entry that
    raises is recorded as a failure and left out; the others go on, and a later run tries it again. ``path`` None is a
    file under ``results`` whose name is the experiment's own.

    Raises CheckpointError or InputError if the model cannot be loaded, and ResultsError if ``path`` cannot be written
    or belongs to another experiment.
    """
    with cpu_threads(experiment.model, experiment.threads):
        subject = Subject(
            load(experiment.model, device=experiment.device, dtype=experiment.dtype), load_tokenizer(experiment.model)
        )
        cases = all_cases(experiment, subject.tokenizer)
        header = describe(experiment, subject.model, cases)
        path = default_path(header) if path is None else Path(path)
        with open_results(path, header) as file:
            done = {(record.entry, record.case) for record in file.before.sequences}
            works = plan_work(experiment, cases, done)
            _Session(subject, experiment, file, on_progress or _ignore, path).run(works)
    return read_results(path)


class _Session:
    """The part of an experiment that one process does."""

    def __init__(
        self, subject: Subject, experiment: Experiment, file: ResultsFile, on_progress: OnProgress, path: Path
    ) -> None:
        self._subject, self._experiment, self._file = subject, experiment, file
        self._on_progress, self._path = on_progress, path
        self._before = self._done = len(file.before.sequences)
        self._left: list[Work] = []

    def run(self, works: Sequence[Work]) -> None:
        """Warm up each entry, then all works in order."""
        self._left = list(works)
        first = {work.entry.key: work for work in reversed(works)}
        for entry in self._experiment.entries:
            if entry.key in first:
                self._attempt(first[entry.key], keep=False)
        while self._left:
            self._attempt(self._left[0], keep=True)
        self._report("finished")

    def _attempt(self, work: Work, *, keep: bool) -> None:
        self._report(f"{'' if keep else 'warm-up: '}{work.cases[0].task.name}, {work.entry}")
        try:
            run = decode(self._subject, self._experiment, work)
            records = to_records(work, run, self._subject.tokenizer)
        except Exception as error:  # one broken entry must not take the others down
            self._drop(work, error)
            return
        if keep:
            self._file.append(records)
            self._left.pop(0)
            self._done += len(records)

    def _drop(self, work: Work, error: Exception) -> None:
        case, (policy, decoder) = work.cases[0], work.entry.key
        failure = FailureRecord(
            task=case.task.name,
            seed=case.seed,
            problem=case.index,
            policy=policy,
            decoder=decoder,
            error=type(error).__name__,
            message=str(error),
        )
        self._file.append([failure])
        self._left = [other for other in self._left if other.entry.key != work.entry.key]
        self._report(f"{work.entry} is left out", failure)

    def _report(self, doing: str, failure: FailureRecord | None = None) -> None:
        total = self._done + sum(len(work.cases) for work in self._left)
        self._on_progress(
            Progress(path=self._path, total=total, before=self._before, done=self._done, doing=doing, failure=failure)
        )


def _ignore(progress: Progress) -> None:
    pass
