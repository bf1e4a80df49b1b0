"""Runs of several implementations in turns: one process each, never two at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen
from torch import Tensor

from benchmarks.peers.methods import Method, Setting

ROOT = Path(__file__).parents[2]


class PeerError(RuntimeError):
    """An implementation could not be loaded or did not finish."""


@frozen
class Contestant:
    """An implementation of a method; ``path`` is its repository, empty for our own."""

    implementation: str
    path: str
    method: Method

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.implementation}: {self.method.name}"


@define
class Times:
    """What one contestant took, step by step, in every run so far. Seconds."""

    wall: list[list[float]] = field(factory=list)  #: a list for each run
    processor: list[list[float]] = field(factory=list)
    tokens: list[int] | None = None  #: of the last run that was not cut short


class Worker:
    """A contestant's process."""

    def __init__(
        self, contestant: Contestant, setting: Setting, checkpoint: Path, prompt: Tensor, turn: int, most: int
    ) -> None:
        self.contestant = contestant
        self.times = Times()
        request = {
            "implementation": contestant.implementation,
            "path": contestant.path,
            "method": contestant.method.name,
            "checkpoint": str(checkpoint),
            "setting": asdict(setting),
            "prompt": prompt.tolist(),
            "turn": turn,
            "most": most,
        }
        self._errors = (checkpoint / f"{contestant.implementation}-{contestant.method.name}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def ready(self) -> None:
        """Wait until it has loaded."""
        self._read()

    def run(self) -> Iterator[int]:
        """One run; gives the number of steps taken after every turn."""
        self.times.wall.append([])
        self.times.processor.append([])
        while "steps" not in (message := self._turn()):
            self.times.wall[-1] += message["wall"]
            self.times.processor[-1] += message["processor"]
            yield len(message["wall"])
        if message["tokens"] is not None:
            self.times.tokens = message["tokens"]

    def _turn(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failed() from error
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self) -> PeerError:
        self._errors.flush()
        last = Path(self._errors.name).read_text(encoding="utf-8").strip().splitlines()[-1:]
        return PeerError(
            f"{self.contestant.label} failed: {last[0] if last else 'no message'}. See {self._errors.name}."
        )


def take_turns(workers: Sequence[Worker], failures: dict[str, str]) -> Iterator[int]:
    """One run of each worker, in turns, until all have ended. Gives the steps of every turn.

    Who fails is left out from then on, and ``failures`` says why; times so far are kept.
    """
    running = [(worker, worker.run()) for worker in workers]
    while running:
        still = []
        for worker, turns in running:
            try:
                moved = next(turns, None)
            except PeerError as error:
                failures[worker.contestant.implementation] = str(error)
                continue
            if moved is not None:
                yield moved
                still.append((worker, turns))
        running = still
