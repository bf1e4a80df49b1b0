"""The order of work: entries take turns at every problem, so that all are measured in the same conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from attrs import frozen

from freshkv.compare.cases import Case, CaseKey
from freshkv.compare.experiment import Entry, Experiment

WorkKey = tuple[tuple[str, str], CaseKey]


@frozen
class Work:
    """Cases of one task that one entry decodes together."""

    entry: Entry
    cases: tuple[Case, ...]


def plan_work(experiment: Experiment, cases: Sequence[Case], done: Collection[WorkKey]) -> list[Work]:
    """What is left: the first batch of every task through all entries, then the second, and so on."""
    batches: dict[tuple[int, int, str], list[Case]] = defaultdict(list)
    for case in cases:
        place = (experiment.seeds.index(case.seed), case.index // experiment.batch_size, case.task.name)
        batches[place].append(case)
    in_turn = sorted(batches, key=lambda place: place[:2])  # stable: tasks keep their order
    works = []
    for place in in_turn:
        for entry in experiment.entries:
            left = tuple(case for case in batches[place] if (entry.key, case.key) not in done)
            if left:
                works.append(Work(entry, left))
    return works
