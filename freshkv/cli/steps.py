"""How far some runs of one sequence are: a bar in a terminal, a line for each run elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from freshkv.cli.console import messages, say

if TYPE_CHECKING:
    from freshkv.core.trace import StepRecord


class StepsDisplay:
    """A context manager. ``begin`` names the next run, and returns what hears of its steps."""

    def __init__(self, runs: int, positions: int) -> None:
        console = messages()
        self._runs, self._positions, self._begun = runs, positions, 0
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("about"), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("left  {task.description}"), console=console, transient=True)
        self._in_terminal = console.is_terminal
        self._task = self._bar.add_task("", total=runs * positions)

    def __enter__(self) -> Self:
        if self._in_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, name: str) -> Callable[[StepRecord], None]:
        """Show that run ``name`` starts; call the result with the record of each of its steps."""
        done = self._begun * self._positions
        self._begun += 1
        words = f"{name} ({self._begun} of {self._runs})"
        if not self._in_terminal:
            say(words)
        self._bar.update(self._task, completed=done, description=words)
        decided = 0

        def step(record: StepRecord) -> None:
            nonlocal decided
            decided += int(record.committed.sum()) - int(record.remasked.sum())
            self._bar.update(self._task, completed=done + decided)

        return step
