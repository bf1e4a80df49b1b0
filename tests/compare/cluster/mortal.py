"""Policies for workers: one ends its process, as told by a file that the environment names and all can read."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path

from attrs import frozen

from freshkv import CachePolicy, Selection

FUSE = "FRESHKV_TEST_FUSE"  #: name of the variable
ON_IMPORT = "import"  #: what the file says to a process that imports this module


def fuse():
    """What the file says; empty where nobody is to die."""
    path = Path(os.environ.get(FUSE, os.devnull))
    return path.read_text() if path.exists() else ""


def burn():
    os.kill(os.getpid(), signal.SIGKILL)


@frozen
class Mortal(CachePolicy):
    """Refreshes everything. Dies in its third step of the problem whose prompt is in the file."""

    name = "mortal"

    def select(self, view):
        prompt = view.tokens[0][view.is_prompt[0]].tolist()
        if view.step == 2 and fuse() == str(prompt):
            burn()
        return Selection(predict=view.everything)


@frozen
class Talkative(CachePolicy):
    """Refreshes everything, with a warning."""

    name = "talkative"

    def select(self, view):
        warnings.warn("Only a warning.", stacklevel=1)
        return Selection(predict=view.everything)


if fuse() == ON_IMPORT:
    burn()
