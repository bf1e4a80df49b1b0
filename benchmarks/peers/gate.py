"""Lets a run go on a few steps at a time, so that several runs take turns on a machine, and times every step."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import frozen


class CutShortError(Exception):
    """As many steps as were asked for have been taken; the rest of the run is not needed."""


@frozen
class StepTime:
    """Seconds of one step: on the clock, and of the processor, summed over threads."""

    wall: float
    processor: float


#: told the times of the steps of a turn; returns when the next turn begins
EndTurn = Callable[[list[StepTime]], None]


class Gate:
    """``step_begins`` before every step, ``run_ends`` after the last.

    A step lasts until the next one begins, so that it includes decoding and bookkeeping. Time between turns does not
    count. ``turn`` is in steps; after ``most`` steps ``step_begins`` raises CutShortError.
    """

    def __init__(self, turn: int, most: int, end_turn: EndTurn) -> None:
        self._turn = turn
        self._most = most
        self._end_turn = end_turn
        self._times: list[StepTime] = []
        self._began: StepTime | None = None
        self.steps = 0  #: that have ended

    def step_begins(self) -> None:
        """The step before, if there is one, has ended."""
        self._step_ends()
        if self.steps == self._most:
            self._hand_over()
            raise CutShortError
        if len(self._times) == self._turn:
            self._hand_over()
        self._began = _now()

    def run_ends(self) -> None:
        """The last step has ended."""
        self._step_ends()
        self._hand_over()

    def _step_ends(self) -> None:
        if self._began is not None:
            now = _now()
            self._times.append(StepTime(now.wall - self._began.wall, now.processor - self._began.processor))
            self.steps += 1
        self._began = None

    def _hand_over(self) -> None:
        finished, self._times = self._times, []
        if finished:
            self._end_turn(finished)


def _now() -> StepTime:
    return StepTime(time.perf_counter(), time.process_time())
