"""Errors as one clear message and an exit code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Annotated, Any

import typer

from freshkv.cli.console import say
from freshkv.core.errors import CheckpointError, FreshkvError, InputError, SpecError, UnknownNameError

INTERRUPTED = 130  #: exit code after Ctrl-C, as shells have it
BAD_INPUT = 2
FAILED = 1

Debug = Annotated[bool, typer.Option("--debug", help="Show where an error was raised, not only its message.")]


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose FreshkvErrors end as a message, and whose warnings are single lines.

    The option ``--debug`` of the command lets the traceback through.
    """

    @wraps(command)
    def guarded(*arguments: Any, debug: bool = False, **options: Any) -> None:
        try:
            with _short_warnings():
                command(*arguments, debug=debug, **options)
        except FreshkvError as error:
            if debug:
                raise
            say(f"Error: {error}", style="red")
            raise typer.Exit(exit_code(error)) from error
        except KeyboardInterrupt as error:
            say("Stopped.")
            raise typer.Exit(INTERRUPTED) from error

    return guarded


def exit_code(error: FreshkvError) -> int:
    """2 for what the user can put right on the command line, 1 for everything else."""
    from_input = (InputError, SpecError, UnknownNameError, CheckpointError)
    return BAD_INPUT if isinstance(error, from_input) else FAILED


@contextmanager
def _short_warnings() -> Iterator[None]:
    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        say(f"Warning: {message}", style="yellow")

    before = warnings.showwarning
    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = before
