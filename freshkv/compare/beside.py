"""What an experiment leaves beside its results: traces and drifts of the first problems of each task."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from attrs import field, frozen

from freshkv.compare.cases import Case
from freshkv.compare.drift import measure_drift
from freshkv.compare.experiment import Entry, Experiment
from freshkv.compare.measure import Subject, decode, pad_prompts
from freshkv.compare.schedule import Work
from freshkv.compare.traces import drift_path, save_drift, save_trace, trace_path
from freshkv.core.errors import InputError, ResultsError
from freshkv.core.run import Run


def _count(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"{value!r} sequences are to be kept; expected a whole number of at least 0.")
    return value


@frozen(kw_only=True)
class Keep:
    """How much is left beside the results; no part of the experiment, whose results do not depend on it."""

    traces: int = field(default=0, converter=_count)  #: first problems of each task and seed, for each entry
    drift: int = field(default=0, converter=_count)  #: likewise


KEEP_NOTHING = Keep()


@frozen(kw_only=True, eq=False)
class Beside:
    """Writes the files. What is there already is left as it is."""

    subject: Subject
    experiment: Experiment
    results: Path
    keep: Keep

    def after_run(self, work: Work, run: Run) -> None:
        """Save the traces that are wanted of a batch which has just been decoded. Raises ResultsError."""
        for place, case in enumerate(work.cases):
            if case.index < self.keep.traces and work.repeat == 0:
                save_trace(self.results, case, run.trace, place, self.subject.tokenizer)

    def make(self, kind: str, work: Work) -> None:
        """Decode the one case of ``work`` once more, for its ``trace`` or its ``drift``.

        What goes wrong is a warning: all results are there. Raises ResultsError if the file cannot be written.
        """
        try:
            if kind == "trace":
                self.after_run(work, decode(self.subject, self.experiment, work))
            else:
                self._measure_drift(work.entry, work.cases[0])
        except ResultsError:
            raise
        except Exception as error:
            where = f"{work.entry} on problem {work.cases[0].index} of {work.cases[0].task.name}"
            warnings.warn(f"There is no {kind} of {where} ({type(error).__name__}: {error}).", stacklevel=2)

    def _measure_drift(self, entry: Entry, case: Case) -> None:
        ids, _ = pad_prompts([case.prompt], self.subject.tokenizer)
        drift = measure_drift(
            self.subject.model,
            ids,
            policy=entry.policy,
            decoder=entry.decoder,
            gen_length=self.experiment.gen_length_of(case.task),
            block_length=self.experiment.block_length,
            seed=case.sampling_seed,
        )
        save_drift(self.results, case, drift)


def missing_beside(
    results: Path, keep: Keep, works: Sequence[Work], failed: Collection[tuple[str, str]]
) -> Iterator[tuple[str, Work]]:
    """What belongs beside ``results`` and is not, of entries that have not ``failed``: its kind, and the work alone."""
    for work in works:
        for case in work.cases:
            alone, key = Work(work.entry, (case,)), (work.entry.key, case.key)
            if work.repeat > 0 or work.entry.key in failed:
                continue
            if case.index < keep.traces and not trace_path(results, *key).exists():
                yield "trace", alone
            if case.index < keep.drift and not drift_path(results, *key).exists():
                yield "drift", alone
