"""An experiment whose works are done by a crew, from begin to end: this process plans, writes and reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import torch
from attrs import evolve

from freshkv.compare.beside import Keep, missing_beside
from freshkv.compare.budget import arrange, make_lineup
from freshkv.compare.cluster.crew import Crew, describe_needs
from freshkv.compare.cluster.errand import Done, Errand, Job, Lost
from freshkv.compare.cluster.shift import Outcomes, Wanted, carry_out
from freshkv.compare.experiment import Experiment
from freshkv.compare.ledger import Ledger
from freshkv.compare.lineup import Lineup, Setting
from freshkv.compare.progress import OnProgress, Stage, preparation
from freshkv.compare.provenance import default_path, entry_origins, task_origins
from freshkv.compare.records import FailureRecord, Header
from freshkv.compare.runner import works_left
from freshkv.compare.schedule import Work, by_turn, first_works, plan_work
from freshkv.compare.store import open_results
from freshkv.compare.threads import thread_count
from freshkv.compare.traces import save_beside
from freshkv.core.errors import ClusterError, InputError, WorkLostError
from freshkv.core.version import VERSION
from freshkv.models.registry import bundled_models


def run_on_crew(crew: Crew, experiment: Experiment, path: Path | None, on_progress: OnProgress, keep: Keep) -> Path:
    """Have ``crew`` do what is left of ``experiment``; the path of the results."""
    job = make_job(crew, experiment, keep)
    hear = _preparing(on_progress, path or Path("results"), "starting")
    doing = f"waiting for a worker ({describe_needs(job)}) to load {experiment.model}"
    hear(doing, 0, None)
    first = crew.describe(job, lambda: hear(doing, 0, None))
    assert first.cases is not None
    _check_alike(experiment, first.header, first.host)
    header = evolve(first.header, model=experiment.model)
    path = default_path(header) if path is None else path
    hear = _preparing(on_progress, path, "budgets")
    lineup = arrange(experiment, header, path, lambda: _calibrate(crew, job, experiment, first.header, hear))
    header = evolve(header, lineup=lineup)
    with open_results(path, header) as file:
        works = works_left(experiment, first.cases, file.before)
        ledger = Ledger(file, path, works, on_progress)
        session = _Session(crew, job, first.header, ledger, path)
        session.decode(works, experiment.batch_size)
        session.complete(keep, plan_work(experiment, first.cases, (), header.lineup))
    return path


def find_models(crew: Crew, experiments: Sequence[Experiment], on_progress: OnProgress, path: Path) -> None:
    """Raise what ``make_job`` raises, and what ``locate`` does unless a worker has all models, before any work."""
    models = [model_for_workers(model) for model in dict.fromkeys(experiment.model for experiment in experiments)]
    hear = _preparing(on_progress, path, "starting")
    job, *_ = [make_job(crew, experiment, Keep()) for experiment in experiments]
    crew.find(models, job, lambda: hear(f"waiting for a worker ({describe_needs(job)})", 0, None))


def make_job(crew: Crew, experiment: Experiment, keep: Keep) -> Job:
    """``experiment`` as workers need it. Raises InputError for a device that they cannot have."""
    device, colon, _ = experiment.device.partition(":")
    if colon:
        raise InputError(
            f"device is {experiment.device!r}; on Ray, which gives each worker a GPU of its own, it is {device!r}."
        )
    on_gpu = device == "cuda"
    threads = thread_count(experiment.model, experiment.threads)
    for_workers = evolve(experiment, model=model_for_workers(experiment.model))
    return Job(
        # by Ray's own pickle, which also takes classes of a notebook or script
        payload=crew.ray.cloudpickle.dumps((for_workers, keep)),
        threads=threads,
        matmul_precision=torch.get_float32_matmul_precision(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
        cpus=(experiment.threads or 1) if on_gpu else threads,
        gpus=int(on_gpu),
    )


def model_for_workers(model: str) -> str:
    """The model as workers find it: they run in another folder, perhaps on another machine with the same disk."""
    path = Path(model).expanduser()
    return str(path.resolve()) if model not in bundled_models() and path.is_dir() else model


def _check_alike(experiment: Experiment, header: Header, host: str) -> None:
    """Raise ClusterError unless workers have the same freshkv and plugins as this process."""
    here = {"freshkv": VERSION, **task_origins(experiment), **entry_origins(experiment)}
    facts = header.experiment
    there = {"freshkv": header.environment["freshkv"], **facts["task_origins"], **facts["origins"]}
    unlike = [
        f"{name} is {there.get(name)} there and {own} here" for name, own in here.items() if there.get(name) != own
    ]
    if unlike:
        raise ClusterError(
            f"The worker on {host} has other versions: {'; '.join(unlike)}. Install the same on every node, and where "
            "the comparison is started."
        )


Say = Callable[[str, int, str | None], None]


def _preparing(on_progress: OnProgress, path: Path, stage: Stage) -> Say:
    def say(doing: str, workers: int, note: str | None) -> None:
        on_progress(preparation(path, stage, doing, workers, note))

    return say


def _calibrate(crew: Crew, job: Job, experiment: Experiment, expected: Header, say: Say) -> Lineup:
    """Budgets of all settings, each measured by one worker. Raises ClusterError if workers die of one."""
    places = [(t, d) for t in range(len(experiment.tasks)) for d in range(len(experiment.decoders))]
    units = [
        [Errand("calibrate", (t, d), f"budgets of {experiment.tasks[t].name}, {experiment.decoders[d].spec}")]
        for t, d in places
    ]
    settings: dict[tuple[int, int], Setting] = {}

    def hear(workers: int, note: str | None) -> None:
        say(f"measuring budgets: {len(settings)} of {len(units)} settings", workers, note)

    hear(0, None)
    for outcome in carry_out(crew, units, job, expected, _always, hear):
        if isinstance(outcome, Lost):
            raise ClusterError(f"{_lost(outcome)} Without budgets nothing can be compared.")
        t, d = outcome.errand.arguments
        settings[t, d] = outcome.answer.value
        hear(outcome.alive, None)
    return make_lineup(experiment, [settings[place] for place in places])


def _always(errand: Errand) -> bool:
    return True


def _lost(outcome: Lost) -> str:
    return (
        f"{outcome.attempts} workers died of this, one after the other: {outcome.errand.name}; the last one with "
        f"{outcome.reason}."
    )


class _Session:
    """What this process does with the answers of a crew."""

    def __init__(self, crew: Crew, job: Job, expected: Header, ledger: Ledger, path: Path) -> None:
        self._crew, self._job, self._expected = crew, job, expected
        self._ledger, self._path = ledger, path
        self._doing = "waiting for workers"

    def decode(self, works: Sequence[Work], batch_size: int) -> None:
        """Do all works. Raises WorkLostError in the end if workers died of some."""
        first = first_works(works)
        units = [
            [Errand("decode", (work, first[work.entry.key]), _name(work)) for work in turn]
            for turn in by_turn(works, batch_size)
        ]
        lost = []
        if units:
            self._ledger.report(self._doing, workers=0)
        for outcome in self._carry_out(units, self._is_wanted):
            if isinstance(outcome, Lost):
                lost.append(outcome)
                self._hear(outcome.alive, f"Given up. {_lost(outcome)}")
            else:
                self._take(outcome)
        if lost:
            missing = sum(len(outcome.errand.arguments[0].cases) for outcome in lost)
            raise WorkLostError(
                f"{missing} sequence{'s are' if missing > 1 else ' is'} missing in {self._path}. "
                f"{' '.join(map(_lost, lost))} All others are kept, and the same command tries again what is missing; "
                "Ray's logs say more of why workers died."
            )

    def complete(self, keep: Keep, works: Sequence[Work]) -> None:
        """Have made what is to be kept beside the results and is not there."""
        missing = missing_beside(self._path, keep, works, self._ledger.failed)
        units = [[Errand("make", (kind, work), f"{kind} of {_name(work)}")] for kind, work in missing]
        for outcome in self._carry_out(units, _always):
            self._doing = outcome.errand.name
            if isinstance(outcome, Lost):  # all results are there
                self._hear(outcome.alive, f"There is no {outcome.errand.name}. {_lost(outcome)}")
            else:
                self._save_files(outcome)
                self._hear(outcome.alive, None)
        self._ledger.report("finished")

    def _carry_out(self, units: Sequence[Sequence[Errand]], wanted: Wanted) -> Outcomes:
        with closing(
            carry_out(self._crew, units, self._job, self._expected, wanted, self._hear)
        ) as outcomes:  # whatever is raised here, by Ctrl-C or a full disk, ends what workers are doing
            yield from outcomes

    def _is_wanted(self, errand: Errand) -> bool:
        work: Work = errand.arguments[0]
        return work.entry.key not in self._ledger.failed

    def _take(self, outcome: Done) -> None:
        work, value = outcome.errand.arguments[0], outcome.answer.value
        self._doing = work.name
        if isinstance(value, FailureRecord):
            self._ledger.drop(work, value)
            return
        self._save_files(outcome)  # before the records that say that their sequences are done
        self._ledger.keep(work, [evolve(record, workers=outcome.together) for record in value])
        self._hear(outcome.alive, None)

    def _save_files(self, outcome: Done) -> None:
        for name, content in outcome.answer.files:
            save_beside(self._path, name, content)

    def _hear(self, alive: int, note: str | None) -> None:
        self._ledger.report(self._doing, workers=alive, note=note)


def _name(work: Work) -> str:
    """The work, for people who look for what is wrong with it."""
    indices = [case.index for case in work.cases]
    problems = f"problem {indices[0]}" if len(indices) == 1 else f"problems {indices[0]} to {indices[-1]}"
    return f"{work.entry} on {problems} of {work.cases[0].task.name}, seed {work.cases[0].seed}"
