"""lm-eval's tasks by name. Reading its whole list takes seconds, so a folder of the user's own comes first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from freshkv.core.errors import InputError, did_you_mean


def find_tasks(
    names: Sequence[str], include_path: Path | None, on_message: Callable[[str], None]
) -> tuple[TaskManager, list[str]]:
    """A manager that knows ``names``, and those of them that execute what the model writes.

    Their data is read, too, so that nothing is missing once the model is there. Raises InputError.
    """
    manager = _manager(names, include_path, on_message)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        where = "" if include_path is None else f" nor one of {include_path}"
        raise InputError(
            f"'{unknown[0]}' is no task of lm-eval{where}.{did_you_mean(unknown[0], manager.all_tasks)} "
            "lm_eval ls tasks shows all; --include-path adds a folder of your own."
        )
    return manager, _unsafe(names, manager)


def _manager(names: Sequence[str], include_path: Path | None, on_message: Callable[[str], None]) -> TaskManager:
    if include_path is not None:
        if not include_path.is_dir():
            raise InputError(f"--include-path {include_path} is no folder; expected one with task files (.yaml).")
        own = TaskManager(include_path=str(include_path), include_defaults=False)
        if set(names) <= set(own.all_tasks):
            return own
    on_message("Reading lm-eval's list of tasks ...")
    return TaskManager(include_path=None if include_path is None else str(include_path))


def _unsafe(names: Sequence[str], manager: TaskManager) -> list[str]:
    try:
        loaded: dict[str, Any] = manager.load(list(names))["tasks"]
    except Exception as error:  # task files run code of their own and download data
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise InputError(
            f"lm-eval cannot read {', '.join(names)} ({type(error).__name__}: {reason}). Their data comes from the hub "
            "unless the task names local files."
        ) from error
    return [name for name, task in loaded.items() if getattr(task, "UNSAFE_CODE", False)]
