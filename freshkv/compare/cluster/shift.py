"""Handing out: a worker that is free gets the next unit; where one dies, what it had goes back to the front."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

from attrs import define

from freshkv.compare.cluster.crew import RETRIES, TICK, Crew, DiedError, Member, cannot_start
from freshkv.compare.cluster.errand import Done, Errand, Job, Lost
from freshkv.compare.records import Header
from freshkv.core.errors import ClusterError

MOST_LOST = 3  #: errands in a row that no worker survives; then something is wrong with more than an errand

#: whether an errand is still to be done
Wanted = Callable[[Errand], bool]
Outcomes = Generator[Done | Lost, None, None]
#: is told how many workers are alive, and what has happened, if anything
Hear = Callable[[int, str | None], None]


def carry_out(
    crew: Crew, units: Sequence[Sequence[Errand]], job: Job, expected: Header, wanted: Wanted, hear: Hear
) -> Outcomes:
    """Do all errands that are still ``wanted`` when their turn comes; those of a unit one by one, by one worker.

    As many workers are hired as there are units, and room for them. Close it to end early: no errand goes on.
    Raises ClusterError, and what methods of a worker raise.
    """
    if units:
        with closing(_Shift(crew, units, job, expected, wanted, hear).run()) as outcomes:
            yield from outcomes


@define(eq=False)
class _Call:
    """What a worker is doing."""

    member: Member
    unit: deque[Errand] | None = None  #: None: it is getting ready; else it does the first of them
    together: int = 1  #: workers at work on its machine meanwhile, at most


class _Shift:
    """The work of a crew until nothing is left to do."""

    def __init__(
        self, crew: Crew, units: Sequence[Sequence[Errand]], job: Job, expected: Header, wanted: Wanted, hear: Hear
    ) -> None:
        self._crew, self._job, self._expected = crew, job, expected
        self._wanted, self._hear = wanted, hear
        self._queue = deque(deque(unit) for unit in units)
        self._calls: dict[Any, _Call] = {}
        self._idle: deque[Member] = deque()
        self._attempts: Counter[Errand] = Counter()
        self._lost_in_a_row = 0

    def run(self) -> Outcomes:
        """Each errand as it is done or lost."""
        for member in self._crew.hire(self._job, len(self._queue)):
            self._prepare(member)
        try:
            while self._hand_out() or self._busy:
                yield from self._wait()
        finally:
            self._crew.dismiss(call.member for call in self._busy)

    @property
    def _busy(self) -> list[_Call]:
        """Those with something in hand."""
        return [call for call in self._calls.values() if call.unit is not None]

    @property
    def _alive(self) -> int:
        return len(self._idle) + len(self._busy)

    def _prepare(self, member: Member) -> None:
        self._calls[self._crew.make_ready(member, self._job, self._expected)] = _Call(member)

    def _hand_out(self) -> bool:
        """Give units to those who have none; whether some are left."""
        while self._is_left() and self._idle:
            self._send(self._idle.popleft(), self._queue.popleft())
        return self._is_left()

    def _is_left(self) -> bool:
        """Whether the queue has something that is wanted."""
        while self._queue and not self._trim(self._queue[0]):
            self._queue.popleft()
        return bool(self._queue)

    def _trim(self, unit: deque[Errand]) -> bool:
        """Leave out what is not wanted at the front of a unit; whether something remains."""
        while unit and not self._wanted(unit[0]):
            unit.popleft()
        return bool(unit)

    def _send(self, member: Member, unit: deque[Errand]) -> None:
        # where it ends its worker, it comes back at once and goes to whoever is free
        method = getattr(member.actor, unit[0].method).options(max_task_retries=0)
        self._calls[method.remote(*unit[0].arguments)] = _Call(member, unit)
        together = [call for call in self._busy if call.member.host == member.host]
        for call in together:
            call.together = max(call.together, len(together))

    def _wait(self) -> Iterator[Done | Lost]:
        finished, _ = self._crew.ray.wait(list(self._calls), timeout=TICK)
        if not finished:
            self._hear(self._alive, None)
        for key in finished:
            call = self._calls.pop(key)
            if call.unit is None:
                self._welcome(key, call.member)
            else:
                yield from self._collect(key, call, call.unit)

    def _welcome(self, key: Any, member: Member) -> None:
        """A worker is ready, or never will be."""
        try:
            answer = self._crew.receive(key)
        except DiedError as error:
            self._crew.dismiss([member])
            if not self._calls and not self._idle:
                raise cannot_start(str(error)) from error
            self._hear(self._alive, f"A worker cannot be started ({error}); the others go on.")
            return
        member.waking.clear()
        if answer is not None:
            member.host, member.pid = answer.value.host, answer.value.pid
        self._idle.append(member)

    def _collect(self, key: Any, call: _Call, unit: deque[Errand]) -> Iterator[Done | Lost]:
        """Take what a worker has done, and let it go on with its unit."""
        try:
            answer = self._crew.receive(key)
        except DiedError as error:
            yield from self._recover(call.member, unit, error)
            return
        if answer is None:  # it was started again before it got the errand
            self._queue.appendleft(unit)
            self._prepare(call.member)
            return
        self._lost_in_a_row = 0
        yield Done(errand=unit.popleft(), answer=answer, together=call.together, alive=self._alive + 1)
        # only now it is known whether the next one is wanted
        if self._trim(unit):
            self._send(call.member, unit)
        else:
            self._idle.append(call.member)

    def _recover(self, member: Member, unit: deque[Errand], error: DiedError) -> Iterator[Lost]:
        """A worker died of an errand: whoever is free next tries it again, unless it was tried often enough."""
        errand = unit[0]
        self._attempts[errand] += 1
        attempts = self._attempts[errand]
        self._prepare(member)
        if attempts <= RETRIES:
            self._queue.appendleft(unit)
            self._hear(self._alive, f"A worker on {member.host} died ({error}). Tried again: {errand.name}.")
            return
        unit.popleft()
        if unit:
            self._queue.appendleft(unit)
        self._lost_in_a_row += 1
        yield Lost(errand=errand, reason=str(error), attempts=attempts, alive=self._alive)
        if self._lost_in_a_row == MOST_LOST:
            raise ClusterError(
                f"{MOST_LOST} works in a row ended each of the {attempts} workers that tried them, the last one with: "
                f"{error}. What is done is kept. Look at Ray's logs, which say more; often the memory is too small for "
                "the model or the batch."
            )
