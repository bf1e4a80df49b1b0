"""How far a comparison is: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from freshkv.cli.console import messages, say

if TYPE_CHECKING:
    from freshkv.compare import Progress

SECONDS_BETWEEN_LINES = 15.0


class ProgressDisplay:
    """A context manager; ``update`` is what ``run_experiment`` calls."""

    def __init__(self, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        console = messages()
        self._pause = seconds_between_lines
        self._started = self._last = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._prepared: set[str] = set()
        self.latest: Progress | None = None
        if console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("about"))
            self._bar = Bar(
                *columns, TimeRemainingColumn(), TextColumn("left  {task.description}"), console=console, transient=True
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        """Show ``progress``."""
        if progress.note is not None:
            self._say(progress.note)
        if progress.stage != "decoding":
            self._prepare(progress)
            return
        if self.latest is None:
            self._introduce(progress)
        self.latest = progress
        if progress.failure is not None:
            failure = progress.failure
            self._say(f"Left out: {failure.policy} with {failure.decoder} ({failure.error}: {failure.message})")
        if self._bar is not None:
            self._update_bar(self._bar, progress)
        elif time.monotonic() - self._last >= self._pause:
            self._last = time.monotonic()
            workers = "" if progress.workers is None else f", workers: {progress.workers}"
            say(f"{progress.done} of {progress.total} sequences, {self._last - self._started:.0f} s{workers}")

    def _prepare(self, progress: Progress) -> None:
        """Before the first sequence, while workers are awaited, or budgets are measured."""
        if self._bar is not None:
            self._update_bar(self._bar, progress)
        elif progress.stage not in self._prepared:
            budgets = f"Budgets come first, measured on other problems; results go to {progress.path}"
            say(budgets if progress.stage == "budgets" else progress.doing[:1].upper() + progress.doing[1:])
        elif time.monotonic() - self._last >= self._pause:
            self._last = time.monotonic()
            say(f"{progress.doing}, {self._last - self._started:.0f} s")
        self._prepared.add(progress.stage)

    def _introduce(self, progress: Progress) -> None:
        if progress.before == 0:
            self._say(f"{progress.total} sequences; results go to {progress.path}")
        elif progress.before < progress.total:
            self._say(f"Continuing {progress.path}: {progress.before} of {progress.total} sequences are there.")
        else:
            self._say(
                f"All {progress.total} sequences are in {progress.path} from an earlier run. "
                "Remove it, or name another --output, to measure again."
            )

    def _update_bar(self, bar: Bar, progress: Progress) -> None:
        if self._task is None:
            self._task = bar.add_task("", total=progress.total or None, completed=progress.before)
        workers = "" if progress.workers is None else f"workers: {progress.workers}, "
        bar.update(
            self._task, total=progress.total or None, completed=progress.done, description=f"{workers}{progress.doing}"
        )

    def _say(self, message: str) -> None:
        if self._bar is None:
            say(message)
        else:
            self._bar.console.print(message, markup=False, soft_wrap=True)
