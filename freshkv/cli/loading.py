"""The time before a model is there: a word in a terminal, no progress bars anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from freshkv.cli.console import say


@contextmanager
def patient() -> Iterator[None]:
    """Import what is heavy, and keep the bars of Transformers out of log files."""
    in_terminal = sys.stderr.isatty()
    if in_terminal:
        say("Loading ...", style="dim")
    from transformers.utils import logging

    if in_terminal or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]
