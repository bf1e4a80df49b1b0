"""Run an experiment, or what is left of it.

Three pieces that know nothing of each other: which works are left (``works_left``), one work done (``perform``), and
its records on disk (``ResultsFile.append``). ``run_experiment`` puts them together in one process, or hands works to
those of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve

from freshkv.compare.beside import KEEP_NOTHING, Beside, Keep, missing_beside
from freshkv.compare.budget import arrange, calibrate
from freshkv.compare.cases import Case, all_cases
from freshkv.compare.cluster.crew import Crew
from freshkv.compare.cluster.place import HERE, Place, workplace
from freshkv.compare.experiment import Experiment
from freshkv.compare.ledger import Ledger
from freshkv.compare.measure import Subject, decode, to_records
from freshkv.compare.progress import OnProgress, Progress, ignore, preparation
from freshkv.compare.provenance import default_path, describe
from freshkv.compare.records import FailureRecord, SequenceRecord
from freshkv.compare.results import Results, read_results
from freshkv.compare.schedule import Work, first_works, plan_work
from freshkv.compare.store import open_results
from freshkv.compare.threads import cpu_threads
from freshkv.core.run import Run
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer

__all__ = ["OnProgress", "Progress", "perform", "run_experiment", "works_left"]


def run_experiment(
    experiment: Experiment,
    path: str | Path | None = None,
    on_progress: OnProgress | None = None,
    keep: Keep = KEEP_NOTHING,
    on: Place = HERE,
) -> Results:
    """Decode what ``path`` does not hold yet, and return all results.

    Every entry is warmed up with a run that does not count; then entries take turns at each problem. An entry that
    raises is recorded as a failure and left out; the others go on, and a later run tries it again. ``path`` None is a
    file under ``results`` whose name is the experiment's own. ``keep`` says how many traces and drifts are left beside
    it; those that are missing are made in the end, without measuring anything again.

    ``on`` says where the work is done: ``"here"``, in this process; ``"ray"`` or an ``OnRay``, by workers on Ray. The
    records are the same but for times and their order, and either continues what the other began.

    Raises CheckpointError or InputError if the model cannot be loaded, and ResultsError if ``path`` cannot be written
    or belongs to another experiment. On Ray, raises ClusterError if there are no workers to be had, and WorkLostError
    in the end if workers died of a work each time it was tried; everything else is kept.
    """
    path = None if path is None else Path(path)
    hear = on_progress or ignore
    with workplace(on, lambda doing: hear(preparation(path or Path("results"), "starting", doing))) as place:
        if isinstance(place, Crew):
            from freshkv.compare.cluster.session import run_on_crew

            return read_results(run_on_crew(place, experiment, path, hear, keep))
        return read_results(_run_here(experiment, path, hear, keep))


def _run_here(experiment: Experiment, path: Path | None, on_progress: OnProgress, keep: Keep) -> Path:
    """All of it in this process; the path of the results."""
    with cpu_threads(experiment.model, experiment.threads):
        subject = Subject(
            load(experiment.model, device=experiment.device, dtype=experiment.dtype), load_tokenizer(experiment.model)
        )
        cases = all_cases(experiment, subject.tokenizer)
        header = describe(experiment, subject.model, cases)
        path = default_path(header) if path is None else path
        hear = partial(_hear_budgets, on_progress, path)
        lineup = arrange(experiment, header, path, lambda: calibrate(subject, experiment, cases, hear))
        header = evolve(header, lineup=lineup)
        with open_results(path, header) as file:
            works = works_left(experiment, cases, file.before)
            session = _Session(
                subject,
                experiment,
                Ledger(file, path, works, on_progress),
                Beside(subject=subject, experiment=experiment, results=path, keep=keep),
            )
            session.run(works)
            session.complete(plan_work(experiment, cases, (), header.lineup))
    return path


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
    """The part of an experiment that this process does."""

    def __init__(self, subject: Subject, experiment: Experiment, ledger: Ledger, beside: Beside) -> None:
        self._subject, self._experiment = subject, experiment
        self._ledger, self._beside = ledger, beside

    def run(self, works: Sequence[Work]) -> None:
        """Warm up each entry, then all works in order."""
        for work in first_works(works).values():
            self._attempt(work, keep=False)
        while (work_left := self._ledger.next_work) is not None:
            self._attempt(work_left, keep=True)

    def complete(self, works: Sequence[Work]) -> None:
        """Make what is to be kept beside the results and is not there: ``works`` are those of the whole experiment."""
        for kind, work in missing_beside(self._beside.results, self._beside.keep, works, self._ledger.failed):
            self._ledger.report(f"{kind}: {work.name}")
            self._beside.make(kind, work)
        self._ledger.report("finished")

    def _attempt(self, work: Work, *, keep: bool) -> None:
        self._ledger.report(f"{'' if keep else 'warm-up: '}{work.name}")
        # a trace is on disk before the records that say that its sequence is done
        outcome = perform(self._subject, self._experiment, work, self._beside.after_run if keep else None)
        if isinstance(outcome, FailureRecord):
            self._ledger.drop(work, outcome)
        elif keep:
            self._ledger.keep(work, outcome)


def _hear_budgets(on_progress: OnProgress, path: Path, doing: str) -> None:
    on_progress(preparation(path, "budgets", doing))
