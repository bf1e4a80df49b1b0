"""An experiment in a process of its own that is killed, as by a power cut: nothing is cleaned up."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context

from attrs import frozen

from freshkv.compare import Experiment, run_experiment, runner, store

#: processes are forked from a server that has imported what takes long, and has not begun to compute
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["freshkv.compare.runner", "freshkv.models.tokenizer"])


@frozen
class Death:
    """When a process kills itself: around a call on its results file. None: never."""

    bytes_written: int | None = None  #: a write is cut off when so many bytes have been written
    call: str | None = None  #: "ftruncate" or "fsync"
    count: int = 0  #: calls of it that go well
    after: bool = False  #: the next one still happens


def start(path, log, fields, death=None, on="here"):
    """A process that runs or continues the experiment, and logs what it decodes."""
    process = PROCESSES.Process(target=_run, args=(str(path), str(log), fields, death or Death(), on))
    process.start()
    return process


def _run(path, log, fields, death, on):
    _log_decoding(log)
    store.os = MortalSystem(death)
    run_experiment(Experiment(**fields), path, on=on)


def _log_decoding(log):
    decode = runner.decode
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def logged(subject, experiment, work):
        os.write(descriptor, "".join(f"{key}\n" for key in work.keys).encode())
        return decode(subject, experiment, work)

    runner.decode = logged


class MortalSystem:
    """The module ``os`` as the results file sees it, with one call that kills the process."""

    def __init__(self, death):
        self._death = death
        self._bytes_left, self._calls_left = death.bytes_written, death.count

    def __getattr__(self, name):
        return self._call(getattr(os, name)) if name == self._death.call else getattr(os, name)

    def write(self, descriptor, data):
        if self._bytes_left is None:
            return os.write(descriptor, data)
        if len(data) > self._bytes_left:
            os.write(descriptor, data[: self._bytes_left])
            _die()
        self._bytes_left -= len(data)
        return os.write(descriptor, data)

    def _call(self, function):
        def mortal(*arguments):
            self._calls_left -= 1
            if self._calls_left >= 0:
                return function(*arguments)
            if self._death.after:
                function(*arguments)
            return _die()

        return mortal


def _die():
    os.kill(os.getpid(), signal.SIGKILL)
