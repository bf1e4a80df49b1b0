"""Run an experiment, or what is left of it.

Three pieces that know nothing of each other: which works are left (``works_left``), one work done (``perform``), and
its records on disk (``ResultsFile.append``). ``run_experiment`` puts them together in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve, frozen

from freshkv.compare.beside import KEEP_NOTHING, Beside, Keep
from freshkv.compare.budget import arrange
from freshkv.compare.cases import Case, all_cases
from freshkv.compare.experiment import Experiment
from freshkv.compare.measure import Subject, decode, to_records
from freshkv.compare.provenance import default_path, describe
from freshkv.compare.records import FailureRecord, SequenceRecord
from freshkv.compare.results import Results, read_results
from freshkv.compare.schedule import Work, plan_work
from freshkv.compare.store import ResultsFile, open_results
from freshkv.compare.threads import cpu_threads
from freshkv.core.run import Run
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer


@frozen(kw_only=True)
class Progress:
    """How far an experiment is."""

    path: Path  #: of the results
    total: int  #: sequences, those of entries that failed left out; 0 while budgets are measured
    before: int  #: of them, those that earlier runs left
    done: int  #: of them, those that are on disk
    doing: str  #: what comes next
    failure: FailureRecord | None = None  #: an entry that has just stopped


OnProgress = Callable[[Progress], None]


def run_experiment(
    experiment: Experiment,
    path: str | Path | None = None,
    on_progress: OnProgress | None = None,
    keep: Keep = KEEP_NOTHING,
) -> Results:
    """Decode what ``path`` does not hold yet, and return all results.

    Every entry is warmed up with a run that does not count; then entries take turns at each problem. An entry that
    raises is recorded as a failure and left out; the others go on, and a later run tries it again. ``path`` None is a
    file under ``results`` whose name is the experiment's own. ``keep`` says how many traces and drifts are left beside
    it; those that are missing are made in the end, without measuring anything again.

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
        hear = partial(_hear_preparation, on_progress or _ignore, path)
        header = evolve(header, lineup=arrange(subject, experiment, cases, header, path, hear))
        with open_results(path, header) as file:
            works = works_left(experiment, cases, file.before)
            beside = Beside(subject=subject, experiment=experiment, results=path, keep=keep)
            session = _Session(subject, experiment, file, on_progress or _ignore, path, beside)
            session.run(works)
            session.complete(plan_work(experiment, cases, (), header.lineup))
    return read_results(path)


def works_left(experiment: Experiment, cases: Sequence[Case], results: Results) -> list[Work]:
    """What ``results`` do not hold yet, in the order in which it is to be done."""
    done = {(record.entry, record.case, record.repeat) for record in results.sequences}
    return plan_work(experiment, cases, done, results.header.lineup)


def perform(
    subject: Subject, experiment: Experiment, work: Work, on_run: Callable[[Work, Run], None] | None = None
) -> tuple[SequenceRecord, ...] | FailureRecord:
    """Do one work: nothing is written, and nothing remembered, so that any process with the model can do it.

    One broken entry must not take the others down: whatever it raises is a FailureRecord. ``on_run`` is handed the run
    of an entry that works.
    """
    try:
        run = decode(subject, experiment, work)
        records = tuple(to_records(work, run, subject.tokenizer))
    except Exception as error:
        case, (policy, decoder) = work.cases[0], work.entry.key
        return FailureRecord(
            task=case.task.name,
            seed=case.seed,
            problem=case.index,
            policy=policy,
            decoder=decoder,
            error=type(error).__name__,
            message=str(error),
        )
    if on_run is not None:
        on_run(work, run)
    return records


class _Session:
    """The part of an experiment that one process does."""

    def __init__(
        self,
        subject: Subject,
        experiment: Experiment,
        file: ResultsFile,
        on_progress: OnProgress,
        path: Path,
        beside: Beside,
    ) -> None:
        self._beside = beside
        self._failed: set[tuple[str, str]] = set()
        self._subject, self._experiment, self._file = subject, experiment, file
        self._on_progress, self._path = on_progress, path
        self._before = self._done = len(file.before.sequences)
        self._left: list[Work] = []

    def run(self, works: Sequence[Work]) -> None:
        """Warm up each entry, then all works in order."""
        self._left = list(works)
        first: dict[tuple[str, str], Work] = {}
        for work in works:
            first.setdefault(work.entry.key, work)
        for work in first.values():
            self._attempt(work, keep=False)
        while self._left:
            self._attempt(self._left[0], keep=True)

    def complete(self, works: Sequence[Work]) -> None:
        """Make what is to be kept beside the results and is not there: ``works`` are those of the whole experiment."""
        for kind, work in self._beside.missing(works, self._failed):
            self._report(f"{kind}: {work.cases[0].task.name}, {work.entry}")
            self._beside.make(kind, work)
        self._report("finished")

    def _attempt(self, work: Work, *, keep: bool) -> None:
        self._report(f"{'' if keep else 'warm-up: '}{work.cases[0].task.name}, {work.entry}")
        # a trace is on disk before the records that say that its sequence is done
        on_run = self._beside.after_run if keep else None
        outcome = perform(self._subject, self._experiment, work, on_run)
        if isinstance(outcome, FailureRecord):
            self._drop(work, outcome)
        elif keep:
            self._file.append(outcome)
            self._left.pop(0)
            self._done += len(outcome)

    def _drop(self, work: Work, failure: FailureRecord) -> None:
        self._file.append([failure])
        self._failed.add(failure.entry)
        self._left = [other for other in self._left if other.entry.key != work.entry.key]
        self._report(f"{work.entry} is left out", failure)

    def _report(self, doing: str, failure: FailureRecord | None = None) -> None:
        total = self._done + sum(len(work.cases) for work in self._left)
        self._on_progress(
            Progress(path=self._path, total=total, before=self._before, done=self._done, doing=doing, failure=failure)
        )


def _hear_preparation(on_progress: OnProgress, path: Path, doing: str) -> None:
    on_progress(Progress(path=path, total=0, before=0, done=0, doing=doing))


def _ignore(progress: Progress) -> None:
    pass
