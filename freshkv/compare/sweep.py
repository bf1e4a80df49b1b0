"""Sweeps: experiments that differ in model, lengths, temperature or the like, each with a results file of its own."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attrs import evolve, field, frozen

from freshkv.compare.beside import KEEP_NOTHING, Keep
from freshkv.compare.cluster.crew import Crew
from freshkv.compare.cluster.place import HERE, Place, workplace
from freshkv.compare.experiment import FIELDS, Experiment
from freshkv.compare.progress import OnProgress, Progress, ignore, preparation
from freshkv.compare.results import Results, read_results
from freshkv.compare.runner import run_experiment
from freshkv.core.errors import FreshkvError, InputError, ResultsError, WorkLostError, did_you_mean
from freshkv.models.source import CONFIG_FILES, locate

#: fields of an experiment that hold lists themselves
LISTS = ("tasks", "policies", "decoders", "seeds")
#: what a sweep can vary
AXES = tuple(name for name in FIELDS if name not in LISTS)
MOST_EXPERIMENTS = 1000


def _tuples(axes: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Each axis with its values, each value once."""
    found = {}
    for name, values in axes.items():
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise InputError(f"The sweep over {name} is {values!r}; expected a list of values.")
        # True and 1 are equal, but not the same value of a field
        found[name] = tuple({(type(value), value): value for value in values}.values())
    return found


@frozen(kw_only=True, eq=False)
class Sweep:
    """Every combination of the values on its axes; a sweep without axes is a single experiment.

    Policies, decoders, tasks and seeds are no axes: one experiment compares them on the same problems. Everything is
    checked when the sweep is made. Raises what ``Experiment`` raises.
    """

    fields: Mapping[str, Any] = field(factory=dict, converter=dict)  #: of all experiments, as ``Experiment`` takes them
    axes: Mapping[str, tuple[Any, ...]] = field(factory=dict, converter=_tuples)  #: field -> its values
    experiments: tuple[Experiment, ...] = field(init=False)  #: the last axis changes fastest

    def __attrs_post_init__(self) -> None:
        _check_names(self.fields, self.axes)
        object.__setattr__(self, "experiments", tuple(self._build()))

    @property
    def points(self) -> tuple[dict[str, Any], ...]:
        """What each experiment has on the axes."""
        return tuple(dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each experiment, made of what it has on the axes: ``tiny-llada-block_length=8``."""
        names: list[str] = []
        for point in self.points or ({},):
            name = "-".join(_slug(axis, value) for axis, value in point.items()) or "experiment"
            taken = sum(other == name or other.startswith(f"{name}~") for other in names)
            names.append(f"{name}~{taken + 1}" if taken else name)
        return tuple(names)

    def _build(self) -> Iterator[Experiment]:
        for point in self.points:
            try:
                yield Experiment(**{**self.fields, **point})
            except FreshkvError as error:
                where = ", ".join(f"{axis} = {value!r}" for axis, value in point.items())
                raise (type(error)(f"With {where}: {error}") if where else error) from error


def _check_names(fields: Mapping[str, Any], axes: Mapping[str, tuple[Any, ...]]) -> None:
    for name in fields:
        if name not in FIELDS:
            raise InputError(f"An experiment has no '{name}'.{did_you_mean(name, FIELDS)} It has {', '.join(FIELDS)}.")
    for name, values in axes.items():
        if name in LISTS:
            raise InputError(f"{name} cannot be swept: an experiment takes a list of them, all on the same problems.")
        if name not in AXES:
            raise InputError(f"'{name}' cannot be swept.{did_you_mean(name, AXES)} Axes: {', '.join(AXES)}.")
        if name in fields:
            raise InputError(f"{name} is given twice: as one value, and as an axis of the sweep. Leave one out.")
        if not values:
            raise InputError(f"The sweep over {name} is empty; expected at least one value.")
    count = math.prod(map(len, axes.values()))
    if count > MOST_EXPERIMENTS:
        raise InputError(f"The sweep has {count} experiments; at most {MOST_EXPERIMENTS} are allowed.")


def _slug(axis: str, value: Any) -> str:
    """One part of a file name."""
    text = Path(value).name if axis == "model" else str(value).lower()
    slug = re.sub(r"[^\w.]+", "-", text) or "model"
    return slug if axis == "model" else f"{axis}={slug}"


def run_sweep(
    sweep: Sweep,
    folder: str | Path,
    on_progress: OnProgress | None = None,
    keep: Keep = KEEP_NOTHING,
    on: Place = HERE,
) -> tuple[Results, ...]:
    """Run what ``folder`` does not hold yet of all experiments, each into ``folder/NAME.jsonl``.

    Progress is that of the whole sweep. On Ray, all experiments have the same workers. Raises what ``run_experiment``
    raises, WorkLostError only when all experiments have run; a model that is not there is found out before any work.
    """
    folder, hear = Path(folder), on_progress or ignore
    paths = [folder / f"{name}.jsonl" for name in sweep.names]
    total = _Total(sweep, paths, folder, on_progress)
    with workplace(on, lambda doing: hear(preparation(folder, "starting", doing))) as workers:
        _find_models(sweep, folder, hear, workers)
        every, lost = [], []
        for place, (experiment, path) in enumerate(zip(sweep.experiments, paths, strict=True)):
            try:
                every.append(run_experiment(experiment, path, total.part(place), keep, workers))
            except WorkLostError as error:
                lost.append(error)
    if lost:
        raise WorkLostError("\n".join(map(str, lost)))
    return tuple(every)


def _find_models(sweep: Sweep, folder: Path, on_progress: OnProgress, workers: Literal["here"] | Crew) -> None:
    """Raise what ``locate`` raises unless all models are where they are needed."""
    if isinstance(workers, Crew):
        from freshkv.compare.cluster.session import find_models

        find_models(workers, sweep.experiments, on_progress, folder)
    else:
        for model in dict.fromkeys(experiment.model for experiment in sweep.experiments):
            locate(model, CONFIG_FILES, {})


def read_sweep(folder: str | Path) -> tuple[Results, ...]:
    """All results files of a folder, by name. Raises ResultsError if there is none, or one is none."""
    paths = sorted(Path(folder).glob("*.jsonl"))
    if not paths:
        raise ResultsError(f"There are no results in {folder}; expected a folder with files that end with .jsonl.")
    return tuple(map(read_results, paths))


def _count_sequences(path: Path) -> int:
    """What a file holds already; one that cannot be read is left to the run, which says why."""
    try:
        return len(read_results(path).sequences)
    except ResultsError:
        return 0


class _Total:
    """Adds up the progress of all experiments."""

    def __init__(self, sweep: Sweep, paths: Sequence[Path], folder: Path, on_progress: OnProgress | None) -> None:
        self._names, self._folder, self._on_progress = sweep.names, folder, on_progress
        self._totals = [experiment.sequences for experiment in sweep.experiments]
        self._done = [_count_sequences(path) for path in paths]
        self._before = sum(self._done)

    def part(self, place: int) -> OnProgress:
        """What the experiment at ``place`` reports to."""

        def update(progress: Progress) -> None:
            if progress.stage == "decoding":
                self._totals[place], self._done[place] = progress.total, progress.done
            if self._on_progress is not None:
                self._on_progress(
                    evolve(
                        progress,
                        path=self._folder,
                        total=sum(self._totals),
                        before=self._before,
                        done=sum(self._done),
                        doing=f"{self._names[place]}: {progress.doing}",
                    )
                )

        return update
