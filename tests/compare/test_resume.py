"""What is on disk is continued, refused or kept; test_kill.py kills processes."""

import errno
import json
import os
import random
import sys

import pytest

from freshkv.compare import read_results, run_experiment, runner
from freshkv.core.errors import ResultsError
from tests.compare.checkpoint import save_checkpoint

#: of a run
MEASURED = {"seconds", "peak_bytes", "workers"}


def content(results):
    """Everything but measurements, in the order of the file."""
    return [
        tuple((name, getattr(r, name)) for name in r.__slots__ if name not in MEASURED and not name.startswith("_"))
        for r in results.sequences
    ]


@pytest.fixture
def count(monkeypatch):
    """How many batches were decoded."""
    calls = []
    original = runner.decode
    monkeypatch.setattr(runner, "decode", lambda *arguments: calls.append(1) or original(*arguments))
    return calls


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_file_cut_anywhere_is_continued_to_the_same_results(experiment, tmp_path, count, batch_size):
    path = tmp_path / "r.jsonl"
    trial = experiment(problems=3, batch_size=batch_size)
    whole = run_experiment(trial, path)
    data = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(data) if byte == ord("\n")]
    places = random.Random(0).sample(range(len(data)), 10)
    for place in [0, 1, 40, *ends, *(end - 1 for end in ends[-2:]), *places]:
        path.write_bytes(data[:place])
        count.clear()
        results = run_experiment(trial, path)
        kept = max(0, sum(end <= place for end in ends) - 1)
        assert sorted(map(str, content(results))) == sorted(map(str, content(whole)))
        assert list(map(str, content(results)[:kept])) == list(map(str, content(whole)[:kept]))
        if batch_size == 1:
            left = len(whole.sequences) - kept
            assert len(count) == left + min(left, 2)  # a warm-up for each entry that is not finished


def test_nothing_is_done_for_a_finished_experiment(experiment, tmp_path, count):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(), path)
    data = path.read_bytes()
    count.clear()
    run_experiment(experiment(), path)
    assert (len(count), path.read_bytes()) == (0, data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"problems": 3}, "problems is 2 there and 3 here"),
        ({"seeds": [1]}, "seeds is 0 there and 1 here"),
        ({"policies": ["prefix"]}, "policies is none, dual there and none, prefix here"),
        ({"decoders": ["threshold"]}, "decoders is confidence there"),
        ({"block_length": 8}, "block_length is 4 there and 8 here"),
        ({"dtype": "bfloat16"}, "dtype is float32 there and bfloat16 here"),
        ({"temperature": 0.5}, "temperature is 0.0 there and 0.5 here"),
        ({"tasks": ["sums"]}, "tasks is weave there and sums here"),
        ({"batch_size": 2}, "batch_size is 1 there and 2 here"),
        ({"threads": 2}, "threads is 1 there and 2 here"),
    ],
)
def test_a_file_of_another_experiment_is_refused_and_kept(experiment, tmp_path, change, words):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(threads=1), path)
    data = path.read_bytes()
    with pytest.raises(ResultsError, match=words):
        run_experiment(experiment(**{"threads": 1, **change}), path)
    assert path.read_bytes() == data


def test_other_weights_and_versions_are_another_experiment(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(), path)
    other = save_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(ResultsError, match="model_hash is"):
        run_experiment(experiment(model=str(other)), path)
    lines = path.read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    header["environment"]["torch"] = "1.0"
    path.write_text("".join([json.dumps(header) + "\n", *lines[1:]]))
    with pytest.raises(ResultsError, match=r"torch is 1\.0 there"):
        run_experiment(experiment(), path)


@pytest.mark.parametrize("data", [b"notes\n", b"notes", b"{}\n", b'{"kind": "sequence"}\n', b"\xff\xfe\n\n"])
def test_a_file_of_another_kind_is_refused_and_kept(experiment, tmp_path, data):
    path = tmp_path / "notes.txt"
    path.write_bytes(data)
    with pytest.raises(ResultsError, match="not a results file"):
        run_experiment(experiment(), path)
    assert path.read_bytes() == data


def test_damage_before_the_last_line_is_named(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(), path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:20] + b"\n", *lines[2:]]))
    with pytest.raises(ResultsError, match="line 2 is damaged"):
        run_experiment(experiment(), path)
    path.write_bytes(b"".join([*lines[:2], lines[0], *lines[2:]]))
    with pytest.raises(ResultsError, match="line 3 is a second header"):
        read_results(path)


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_is_a_clear_error_and_keeps_what_was_written(experiment, tmp_path, monkeypatch, where):
    path = tmp_path / "r.jsonl"
    write, written = os.write, []

    def failing_write(descriptor, data):
        written.append(data)
        if len(written) == 4:
            write(descriptor, data[:50])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    def failing_sync(descriptor):
        written.append(descriptor)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, where, failing_write if where == "write" else failing_sync)
        with pytest.raises(ResultsError, match=r"No space left on device\. It keeps the 2 sequences"):
            run_experiment(experiment(), path)
    data = path.read_bytes()
    assert (data.count(b"\n"), data[-1:]) == (3, b"\n")
    results = run_experiment(experiment(), path)
    assert path.read_bytes().startswith(data)
    assert len(results.sequences) == len({(r.entry, r.case) for r in results.sequences}) == 4


def test_writes_that_take_a_part_are_finished(experiment, tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:100]))
    assert len(run_experiment(experiment(), tmp_path / "r.jsonl").sequences) == 4


def test_a_path_that_cannot_be_written_is_refused(experiment, tmp_path):
    with pytest.raises(ResultsError, match="Cannot write to"):
        run_experiment(experiment(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="Cannot write to"):
        run_experiment(experiment(), tmp_path / "file" / "r.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_two_processes_cannot_write_the_same_file(experiment, tmp_path):
    path = tmp_path / "r.jsonl"

    def start_another(progress):
        with pytest.raises(ResultsError, match="being written by another process"):
            run_experiment(experiment(), path)

    assert len(run_experiment(experiment(problems=1), path, start_another).sequences) == 2
