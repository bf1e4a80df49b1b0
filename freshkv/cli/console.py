"""Where text goes: answers and tables to standard output, everything about them to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def output() -> Console:
    """Standard output; made anew, because tests and shells replace the stream."""
    return Console(highlight=False)


def messages() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False)


def say(message: str, *, style: str = "") -> None:
    """One line on standard error, wrapped by the terminal and by nobody else."""
    messages().print(Text(message, style=style), soft_wrap=True)
