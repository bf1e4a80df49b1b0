"""A process that is killed at any point loses nothing that it wrote, and nothing is decoded twice."""

import random
import signal
import sys
import time
from collections import Counter

import pytest

from freshkv.compare import Experiment, read_results, run_experiment
from freshkv.core.errors import ResultsError
from tests.compare.killed import Death, start
from tests.compare.test_resume import content

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")

BATCH_SIZE = 2
PATIENCE = 120  #: seconds, for a process that does not end by itself


@pytest.fixture
def fields(checkpoint):
    """Of a small experiment with everything that makes keys differ."""
    return {
        "model": checkpoint, "tasks": ["weave"], "policies": ["none", "dual"], "problems": 3, "repeats": 2,
        "batch_size": BATCH_SIZE, "gen_length": 4, "block_length": 4, "threads": 1,
    }  # fmt: skip


@pytest.fixture
def truth(fields, tmp_path):
    """What a run that nobody disturbs leaves."""
    return run_experiment(Experiment(**fields), tmp_path / "whole.jsonl")


class Victim:
    """One results file, worked on by one process after the other."""

    def __init__(self, folder, fields):
        self.path, self.log, self._fields = folder / "r.jsonl", folder / "log", fields
        self.kills = 0

    def run(self, death=None, delay=None):
        """Let a process work until it is killed or done; True if it is done. Nothing it does may break the promises."""
        before = whole_batches(self.path)
        lines = whole_lines(self.path)[: 1 + len(before)]
        self.log.unlink(missing_ok=True)
        process = start(self.path, self.log, self._fields, death)
        process.join(PATIENCE if delay is None else delay)
        if delay is not None:
            process.kill()
        process.join(PATIENCE)
        assert process.exitcode in {0, -signal.SIGKILL}
        decoded = set(self.log.read_text().splitlines()) if self.log.exists() else set()
        assert not decoded & set(map(str, before)), "something that was kept is decoded again"
        assert whole_lines(self.path)[: len(lines)] == lines, "something that was kept is lost"
        self.kills += process.exitcode != 0
        return process.exitcode == 0

    def check(self, truth):
        """The file holds what an undisturbed run leaves."""
        results = read_results(self.path)
        assert results.header.experiment == truth.header.experiment
        assert len(keys(self.path)) == len(set(keys(self.path))) == len(truth.sequences)
        assert sorted(map(str, content(results))) == sorted(map(str, content(truth)))
        assert not results.failures


def keys(path):
    try:
        return [(record.entry, record.case, record.repeat) for record in read_results(path).sequences]
    except ResultsError:  # not there yet, or killed within the first line
        return []


def whole_batches(path):
    """Keys of what was written to the end: of a batch that was cut off, nothing is kept."""
    if not keys(path):
        return []
    records = read_results(path).sequences
    batch_of = [(r.entry, r.task, r.seed, r.problem // BATCH_SIZE, r.repeat) for r in records]
    sizes = Counter(batch_of)
    return [
        key for key, batch, record in zip(keys(path), batch_of, records, strict=True) if sizes[batch] == record.batch
    ]


def whole_lines(path):
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def test_killed_within_writes_until_it_is_done(fields, truth, tmp_path):
    """Each process gets a little further: the next kill is somewhere within the next few records."""
    randomness, victim = random.Random(0), Victim(tmp_path, fields)
    while not victim.run(Death(bytes_written=randomness.randrange(2000))):
        assert victim.kills < 100
    assert victim.kills >= 6
    victim.check(truth)


def test_killed_around_calls_that_change_the_file(fields, truth, tmp_path):
    victim = Victim(tmp_path, fields)
    for call, count in (("fsync", 0), ("ftruncate", 0), ("fsync", 1), ("fsync", 0)):
        for after in (False, True):
            assert not victim.run(Death(call=call, count=count, after=after))
    assert victim.run()
    victim.check(truth)


def test_killed_at_any_time(fields, truth, tmp_path):
    """From outside, at times drawn from the length of a whole run."""
    victim = Victim(tmp_path, fields)
    began = time.monotonic()
    assert victim.run()
    length = time.monotonic() - began
    victim.path.unlink()
    randomness = random.Random(2)
    for _ in range(5):
        victim.run(delay=randomness.uniform(0.1, 1.0) * length)
    assert victim.kills >= 1
    victim.run()
    victim.check(truth)
