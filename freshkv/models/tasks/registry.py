"""Names to tasks: the built-in ones, and what plugins add."""

from __future__ import annotations

import inspect
from types import MappingProxyType
from typing import Any

from freshkv.core.plugins import Objection
from freshkv.core.registry import Kind, look_up
from freshkv.models.tasks.base import Task
from freshkv.models.tasks.sudoku import Sudoku
from freshkv.models.tasks.sums import Sums
from freshkv.models.tasks.weave import Weave

BUILT_IN: tuple[type[Task], ...] = (Sums, Sudoku, Weave)


def _object_to(given: Any) -> Objection | None:
    missing = [fact for fact in ("gen_length", "words") if not hasattr(given, fact)]
    if missing:
        return Objection(f"it has no {', no '.join(missing)}", f"set {', '.join(missing)} in the class")
    if not isinstance(given.gen_length, int) or given.gen_length < 1:
        return Objection(f"its gen_length is {given.gen_length!r}", "set it to the number of tokens of an answer")
    try:
        inspect.signature(given).bind()
    except TypeError as error:
        return Objection(f"it cannot be built without arguments ({error})", "give every argument a default")
    return None


TASKS: Kind[Task] = Kind(
    "task",
    "freshkv_tasks",
    Task,  # type: ignore[type-abstract]
    lambda: {task.name: task for task in BUILT_IN},
    _object_to,
)


def tasks(*, strict: bool = False) -> MappingProxyType[str, type[Task]]:
    """Name to class of every task, built-in and plugin; ``strict``: PluginError if a plugin was left out."""
    return look_up(TASKS, strict=strict)
