"""The order of work: entries take turns at every problem, so that all are measured in the same conditions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import product

from attrs import frozen

from freshkv.compare.cases import Case, CaseKey
from freshkv.compare.entries import entries_of
from freshkv.compare.experiment import Entry, Experiment
from freshkv.compare.lineup import Lineup

#: entry, problem, repeat
WorkKey = tuple[tuple[str, str], CaseKey, int]


@frozen
class Work:
    """Cases of one task that one entry decodes together. It can be pickled, and done in any process."""

    entry: Entry
    cases: tuple[Case, ...]
    repeat: int = 0  #: from 0

    @property
    def keys(self) -> tuple[WorkKey, ...]:
        """What tells its sequences from all others."""
        return tuple((self.entry.key, case.key, self.repeat) for case in self.cases)

    @property
    def name(self) -> str:
        """Task and entry, for people."""
        return f"{self.cases[0].task.name}, {self.entry}"


def plan_work(
    experiment: Experiment, cases: Sequence[Case], done: Collection[WorkKey], lineup: Lineup | None = None
) -> list[Work]:
    """What is left: the first batch of every task through all entries (and again for each repeat), then the second.

    So entries that are compared run right after each other, A B C A B C, and whatever slows the machine for a while
    slows them alike.
    """
    batches: dict[tuple[int, int, str], list[Case]] = defaultdict(list)
    for case in cases:
        place = (experiment.seeds.index(case.seed), case.index // experiment.batch_size, case.task.name)
        batches[place].append(case)
    in_turn = sorted(batches, key=lambda place: place[:2])  # stable: tasks keep their order
    works = []
    entries = {task.name: entries_of(experiment, task.name, lineup) for task in experiment.tasks}
    for place in in_turn:
        for repeat, entry in product(range(experiment.repeats), entries[place[2]]):
            left = tuple(case for case in batches[place] if (entry.key, case.key, repeat) not in done)
            if left:
                works.append(Work(entry, left, repeat))
    return works


def first_works(works: Iterable[Work]) -> dict[tuple[str, str], Work]:
    """Entry to the first of its works: what it is warmed up with."""
    first: dict[tuple[str, str], Work] = {}
    for work in works:
        first.setdefault(work.entry.key, work)
    return first


def by_turn(works: Iterable[Work], batch_size: int) -> list[list[Work]]:
    """Works whose times are compared with each other, together: those of one batch of problems with one decoder."""
    turns: dict[tuple[CaseKey, str], list[Work]] = defaultdict(list)
    for work in works:
        task, seed, index = work.cases[0].key
        turns[(task, seed, index // batch_size), work.entry.key[1]].append(work)
    return list(turns.values())
