"""What a report is made of: results, their summaries, and the traces and drifts beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from attrs import frozen

from freshkv.compare.cases import CaseKey
from freshkv.compare.pareto import describe_settings
from freshkv.compare.records import SequenceRecord
from freshkv.compare.results import Results, read_results
from freshkv.compare.summary import EntrySummary, summarize
from freshkv.compare.traces import EntryKey, SavedDrift, SavedTrace, load_drifts, load_traces
from freshkv.core.errors import InputError


@frozen(kw_only=True, eq=False, slots=False)  # cached properties need a __dict__
class Source:
    """One results file, with what lies beside it."""

    model: str  #: without its folder
    setting: str  #: what tells it from others of its model, such as ``block_length=8``; empty where nothing does
    name: str  #: by which the report calls it
    one_of_several: bool  #: whether the report has others
    results: Results
    summaries: tuple[EntrySummary, ...]
    traces: tuple[SavedTrace, ...] = ()
    drifts: tuple[SavedDrift, ...] = ()

    @cached_property
    def entries(self) -> tuple[EntryKey, ...]:
        """Policy and decoder of each entry, in order."""
        return tuple(dict.fromkeys((each.policy, each.decoder) for each in self.summaries))

    @cached_property
    def decoders(self) -> tuple[str, ...]:
        """Spec strings, in order."""
        return tuple(dict.fromkeys(each.decoder for each in self.summaries))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(each.task for each in self.summaries))

    @property
    def several_seeds(self) -> bool:
        """Whether a problem's index alone does not say which one it is."""
        return len(self.results.header.experiment["seeds"]) > 1

    def entry_name(self, entry: EntryKey) -> str:
        """The policy, and the decoder where there are several."""
        policy, decoder = entry
        return f"{policy} with {decoder}" if len(self.decoders) > 1 else policy

    def case_order(self, case: CaseKey) -> tuple[int, int, int]:
        """Sorts problems as the experiment has them."""
        task, seed, problem = case
        place = self.tasks.index(task) if task in self.tasks else len(self.tasks)
        return place, seed, problem

    def verdict(self, saved: SavedTrace) -> str:
        """Whether the run solved its problem."""
        record = self._records.get((saved.entry, saved.case))
        if record is None:
            return "the results hold no verdict"
        return "solved" if record.correct else "not solved"

    @cached_property
    def _records(self) -> Mapping[tuple[EntryKey, CaseKey], SequenceRecord]:
        return {(record.entry, record.case): record for record in self.results.answers}


def read_sources(paths: Sequence[str | Path], *, beside: bool = True) -> tuple[Source, ...]:
    """Read results files, and what lies ``beside`` them. Raises ResultsError, and InputError for a file given twice."""
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InputError("A results file is given twice; expected each once.")
    every = [read_results(path) for path in paths]
    models = [Path(results.header.model).name for results in every]
    settings = _settings(every, models)
    return tuple(
        Source(
            model=model,
            setting=setting,
            name=f"{model} ({setting})" if setting else model,
            one_of_several=len(every) > 1,
            results=results,
            summaries=summarize(results),
            traces=load_traces(results.path) if beside else (),
            drifts=load_drifts(results.path) if beside else (),
        )
        for model, setting, results in zip(models, settings, every, strict=True)
    )


def _settings(every: Sequence[Results], models: Sequence[str]) -> list[str]:
    """What tells files of one model apart: settings, or else their paths."""
    pairs = list(zip(models, describe_settings(every), strict=True))
    return [
        setting if pairs.count((model, setting)) == 1 else str(results.path)
        for results, (model, setting) in zip(every, pairs, strict=True)
    ]
