"""A worker's own side: a process that loads the model once, and does what it is told."""

from __future__ import annotations

import os
import pickle
import platform
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from attrs import frozen

from freshkv.compare.beside import Beside, Keep
from freshkv.compare.budget import calibrate_setting
from freshkv.compare.cases import Case, all_cases
from freshkv.compare.cluster.errand import Answer, Job, Readiness
from freshkv.compare.experiment import Experiment
from freshkv.compare.measure import Subject
from freshkv.compare.provenance import describe
from freshkv.compare.records import FailureRecord, Header
from freshkv.compare.runner import perform
from freshkv.compare.schedule import Work
from freshkv.compare.store import header_differences
from freshkv.compare.traces import traces_folder
from freshkv.core.errors import ClusterError, FreshkvError, ResultsError
from freshkv.models import load
from freshkv.models.source import CONFIG_FILES, locate
from freshkv.models.tokenizer import load_tokenizer


@frozen(kw_only=True, eq=False)
class _Bench:
    """What a worker has at hand for a job."""

    payload: bytes
    experiment: Experiment
    keep: Keep
    subject: Subject
    cases: tuple[Case, ...]
    header: Header

    @property
    def checkpoint(self) -> tuple[str, str, str]:
        """What the model was loaded as."""
        return self.experiment.model, self.experiment.device, self.experiment.dtype


class Worker:
    """Becomes an actor of Ray. Where it was started again since ``ready``, its other methods answer None."""

    def __init__(self) -> None:
        self._bench: _Bench | None = None
        self._warm: set[tuple[str, str]] = set()  #: entries that need no warm-up any more

    def ready(self, job: Job, expected: Header | None) -> Answer:
        """Load the model of ``job``, unless it is there, and describe what results would be of.

        Raises ResultsError if that is not as ``expected`` (None: whatever it is), ClusterError or what ``load`` raises
        if it cannot be loaded; each names the machine.
        """
        with _collected() as caught, _named_errors():
            if self._bench is None or self._bench.payload != job.payload:
                self._set_up(job)
        bench = self._bench
        assert bench is not None
        if expected is not None:
            _check_alike(expected, bench.header)
        readiness = Readiness(
            host=platform.node(),
            pid=os.getpid(),
            header=bench.header,
            cases=bench.cases if expected is None else None,
        )
        return Answer(value=readiness, warnings=_told(caught))

    def find(self, models: Sequence[str]) -> Answer:
        """Look for models. Raises what ``locate`` raises for one that is not there."""
        with _named_errors():
            for model in models:
                locate(model, CONFIG_FILES, {})
        return Answer(value=None)

    def decode(self, work: Work, first: Work) -> Answer | None:
        """Records or a failure: what ``perform`` gives. ``first`` warms up the entry, once in the life of a process."""
        bench = self._bench
        if bench is None:
            return None
        with _collected() as caught, _files(bench) as (beside, files):
            outcome = None if work.entry.key in self._warm else perform(bench.subject, bench.experiment, first)
            if not isinstance(outcome, FailureRecord):
                self._warm.add(work.entry.key)
                outcome = perform(bench.subject, bench.experiment, work, beside.after_run)
        return Answer(value=outcome, files=tuple(files), warnings=_told(caught))

    def make(self, kind: str, work: Work) -> Answer | None:
        """What ``Beside.make`` would leave beside the results."""
        bench = self._bench
        if bench is None:
            return None
        with _collected() as caught, _files(bench) as (beside, files):
            beside.make(kind, work)
        return Answer(value=None, files=tuple(files), warnings=_told(caught))

    def calibrate(self, task: int, decoder: int) -> Answer | None:
        """The setting of the experiment's task and decoder in these places.

        Raises InputError for a budget that cannot be measured.
        """
        bench = self._bench
        if bench is None:
            return None
        trial = bench.experiment
        with _collected() as caught:
            setting = calibrate_setting(
                bench.subject, trial, trial.tasks[task], trial.decoders[decoder], bench.cases, _say_nothing
            )
        return Answer(value=setting, warnings=_told(caught))

    def _set_up(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        torch.set_float32_matmul_precision(job.matmul_precision)
        torch.use_deterministic_algorithms(job.deterministic)
        experiment, keep = _unpack(job.payload)
        before, self._bench = self._bench, None
        self._warm.clear()
        checkpoint = experiment.model, experiment.device, experiment.dtype
        if before is not None and before.checkpoint == checkpoint:
            subject = before.subject
        else:
            del before  # two models may be more than fits
            subject = Subject(
                load(experiment.model, device=experiment.device, dtype=experiment.dtype),
                load_tokenizer(experiment.model),
            )
        cases = all_cases(experiment, subject.tokenizer)
        self._bench = _Bench(
            payload=job.payload,
            experiment=experiment,
            keep=keep,
            subject=subject,
            cases=cases,
            header=describe(experiment, subject.model, cases),
        )


def _unpack(payload: bytes) -> tuple[Experiment, Keep]:
    try:
        experiment, keep = pickle.loads(payload)
    except ImportError as error:
        raise ClusterError(
            f"The experiment needs a module that cannot be imported ({error}). Install it on every node, in the same "
            "version as where the comparison is started, or hand it over in Ray's runtime_env."
        ) from error
    except AttributeError as error:
        raise ClusterError(
            f"The experiment needs something that its module does not have here ({error}). Install the same versions "
            "of freshkv and plugins on every node."
        ) from error
    return experiment, keep


def _check_alike(expected: Header, own: Header) -> None:
    differences = header_differences(expected, own)
    if differences:
        raise ResultsError(
            f"A worker is unlike the first one (there; the other, on {platform.node()}, here): "
            f"{'; '.join(differences)}. All workers of an experiment must be alike: install the same versions, and use "
            "nodes of one kind."
        )


@contextmanager
def _named_errors() -> Iterator[None]:
    """Errors of setting up say where they were raised."""
    host = platform.node()
    try:
        yield
    except FreshkvError as error:
        raise type(error)(f"On {host}: {error}") from error
    except Exception as error:  # an out-of-memory error of CUDA, a driver that is too old, ...
        raise ClusterError(
            f"The worker on {host} cannot be set up ({type(error).__name__}: {error}). See that the model fits there, "
            "beside those of other workers."
        ) from error


@contextmanager
def _files(bench: _Bench) -> Iterator[tuple[Beside, list[tuple[str, bytes]]]]:
    """Something that leaves files beside results, and in the end those files: their place is on another machine."""
    files: list[tuple[str, bytes]] = []
    with TemporaryDirectory(prefix="freshkv-") as folder:
        results = Path(folder) / "results"
        yield Beside(subject=bench.subject, experiment=bench.experiment, results=results, keep=bench.keep), files
        left = traces_folder(results)
        files += [(path.name, path.read_bytes()) for path in sorted(left.iterdir())] if left.exists() else []


@contextmanager
def _collected() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        yield caught


def _told(caught: Sequence[warnings.WarningMessage]) -> tuple[tuple[str, type[Warning]], ...]:
    """Texts and categories; of a package that may not be there where they are heard, as any warning of a user."""
    known = ("builtins", "freshkv")
    return tuple(
        (str(each.message), each.category if each.category.__module__.split(".")[0] in known else UserWarning)
        for each in caught
    )


def _say_nothing(doing: str) -> None:
    """Nobody hears a worker."""
