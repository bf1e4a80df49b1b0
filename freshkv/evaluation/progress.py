"""How far an evaluation is: a bar in a terminal, a line now and then elsewhere; from the first process only."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0


class EvaluationProgress:
    """A context manager over some requests."""

    def __init__(self, doing: str, total: int, *, visible: bool) -> None:
        self._console = Console(stderr=True, highlight=False, quiet=not visible)
        self._doing, self._total, self._done = doing, total, 0
        self._last = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._console.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TimeLeft(), console=self._console, transient=True)
            self._task = self._bar.add_task(self._doing, total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """``count`` more requests are done."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.say(f"{self._doing}: {self._done} of {self._total}")

    def say(self, message: str) -> None:
        """A line of its own."""
        console = self._console if self._bar is None else self._bar.console
        console.print(Text(message), soft_wrap=True)
