"""One implementation in a process of its own: loads, then runs in turns as the parent says.

The parent writes a line for every turn; the answer is a JSON line with the times of each step of it, and, when a run
has ended, its tokens (None where it was cut short).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks.peers.adapters import ADAPTERS
from benchmarks.peers.gate import CutShortError, Gate, StepTime
from benchmarks.peers.methods import Setting


class Turns:
    """The other end of the parent's pipes. Nothing else may print to where the answers go."""

    def __init__(self) -> None:
        self._answers: TextIO = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print goes to the errors

    def answer(self, message: dict[str, Any]) -> None:
        """Hand over."""
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def wait(self) -> bool:
        """Until the parent says go; False when it says nothing more."""
        return sys.stdin.readline().strip() == "go"


def main(request: dict[str, Any]) -> None:
    """Load, then one run for each "go" that finds none under way."""
    turns = Turns()
    setting = Setting(**request["setting"])
    torch.set_num_threads(setting.threads)
    path, checkpoint = Path(request["path"] or "."), Path(request["checkpoint"])
    run = ADAPTERS[request["implementation"]](path, checkpoint, request["method"], setting)
    prompt = torch.tensor(request["prompt"])
    turns.answer({"ready": True})

    def end_turn(times: list[StepTime]) -> None:
        turns.answer({"wall": [time.wall for time in times], "processor": [time.processor for time in times]})
        if not turns.wait():
            sys.exit(0)

    while turns.wait():
        gate = Gate(request["turn"], request["most"], end_turn)
        tokens = None
        try:
            with torch.no_grad():
                tokens = run(prompt, gate)[0].tolist()
        except CutShortError:
            pass
        turns.answer({"tokens": tokens, "steps": gate.steps})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
