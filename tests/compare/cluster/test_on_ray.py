"""On Ray, results are those of one process, whoever dies meanwhile."""

import contextlib
import os
import random
import shutil
import signal
import sys
import time
import types

import pytest
from attrs import frozen
from typer.testing import CliRunner

from freshkv import CachePolicy, Selection
from freshkv.cli import app
from freshkv.compare import Keep, OnRay, Sweep, check_fairness, read_results, run_experiment, run_sweep
from freshkv.compare.cases import all_cases
from freshkv.compare.cluster import crew as crew_module
from freshkv.compare.cluster import session
from freshkv.compare.cluster import shift as shift_module
from freshkv.compare.traces import traces_folder
from freshkv.core.errors import ClusterError, InputError, ResultsError, UnknownNameError, WorkLostError
from freshkv.models.tokenizer import load_tokenizer
from tests.compare.cluster.mortal import ON_IMPORT, Mortal, Talkative
from tests.compare.killed import Death, start
from tests.compare.test_resume import content

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL"),
    # Ray drops the processes that it has ended without waiting for them, and older ones leave log files open
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file .*/session_.*/logs/:ResourceWarning"),
]

PATIENCE = 120  #: seconds, for what ends by itself


def same(results):
    """Everything but measurements and order."""
    return sorted(map(str, content(results)))


def beside(path):
    """Names and contents of what lies beside results."""
    folder = traces_folder(path)
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else {}


def check_same(one, other):
    """Two results files hold the same, each thing once."""
    keys = [(record.entry, record.case, record.repeat) for record in one.sequences]
    assert len(keys) == len(set(keys))
    assert same(one) == same(other)
    assert one.failures == other.failures
    assert (one.header.experiment, one.header.environment) == (other.header.experiment, other.header.environment)
    assert (one.header.model, one.header.lineup) == (other.header.model, other.header.lineup)
    assert beside(one.path) == beside(other.path)


@pytest.mark.parametrize(
    ("changes", "keep"),
    [
        ({"tasks": ["weave", "sums"], "problems": 3, "policies": ["dual", "dllm:kp=4,kr=3"]}, Keep()),
        ({"decoders": ["confidence", "wino"], "problems": 3, "batch_size": 2, "repeats": 2}, Keep(traces=3)),
        ({"temperature": 1.0, "seeds": [0, 5], "problems": 2, "stop_at_eos": True}, Keep(traces=1, drift=1)),
        ({"decoders": ["confidence", "threshold"], "match_budget": "dual", "regret": True}, Keep()),
    ],
    ids=["tasks", "batches", "sampling", "budgets"],
)
def test_results_are_those_of_one_process(crew, experiment, tmp_path, changes, keep):
    trial = experiment(**changes)
    heard = []
    on_ray = run_experiment(trial, tmp_path / "ray.jsonl", heard.append, keep, on=crew)
    here = run_experiment(trial, tmp_path / "here.jsonl", keep=keep)
    check_same(on_ray, here)
    done = [progress.done for progress in heard]
    assert done == sorted(done)
    assert (done[-1], heard[-1].total) == (len(here.sequences), len(here.sequences))
    data = on_ray.path.read_bytes()
    run_experiment(trial, on_ray.path, keep=keep)  # nothing is left to do, here as well
    assert on_ray.path.read_bytes() == data


def test_an_entry_that_raises_is_one_failure_and_is_left_out(crew, experiment, tmp_path, broken):
    """Each worker finds out by itself."""
    trial = experiment(policies=["none", broken, "dual"], problems=4)
    heard = []
    on_ray = run_experiment(trial, tmp_path / "ray.jsonl", heard.append, on=crew)
    check_same(on_ray, run_experiment(trial, tmp_path / "here.jsonl"))
    assert [progress.failure for progress in heard if progress.failure] == list(on_ray.failures)
    assert len(on_ray.failures) == 1


def test_a_sweep_has_the_same_workers_throughout(crew, experiment, checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    fields = {"tasks": ["weave"], "policies": ["dual"], "problems": 2, "gen_length": 8, "block_length": 4}
    sweep = Sweep(fields=fields, axes={"model": [checkpoint, str(other)], "temperature": [0, 1]})
    heard = []
    on_ray = run_sweep(sweep, tmp_path / "ray", heard.append, on=crew)
    for one, here in zip(on_ray, run_sweep(sweep, tmp_path / "here"), strict=True):
        check_same(one, here)
    assert {progress.total for progress in heard if progress.stage == "decoding"} == {16}
    nowhere = Sweep(fields=fields, axes={"model": [checkpoint, "nobody"]})
    with pytest.raises(UnknownNameError, match=r"On .*: Unknown model 'nobody'"):
        run_sweep(nowhere, tmp_path / "nowhere", on=crew)
    assert not (tmp_path / "nowhere").exists()


def test_a_full_disk_is_an_error_as_without_ray(crew, experiment, tmp_path):
    (tmp_path / "ray.jsonl.traces").write_text("no folder")
    with pytest.raises(ResultsError, match="Cannot make the folder"):
        run_experiment(experiment(problems=1), tmp_path / "ray.jsonl", keep=Keep(traces=1), on=crew)
    assert not read_results(tmp_path / "ray.jsonl").sequences


def test_other_versions_than_here_are_refused(crew, experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "VERSION", "9.9")
    with pytest.raises(
        ClusterError, match=r"has other versions: freshkv is \S+ there and 9\.9 here\. Install the same"
    ):
        run_experiment(experiment(), tmp_path / "r.jsonl", on=crew)
    assert not (tmp_path / "r.jsonl").exists()


def test_a_module_that_only_this_process_has_is_named(crew, experiment, tmp_path, monkeypatch):
    module = types.ModuleType("only_here")
    policy = type("Here", (type(experiment().policies[0]),), {"name": "only-here", "__module__": "only_here"})
    module.Here = policy
    monkeypatch.setitem(sys.modules, "only_here", module)
    with pytest.raises(ClusterError, match=r"On \S+: The experiment needs a module .*No module named 'only_here'"):
        run_experiment(experiment(policies=[policy()]), tmp_path / "r.jsonl", on=crew)


def test_a_class_of_a_notebook_goes_along(crew, experiment, tmp_path, monkeypatch):
    """Ray pickles what is defined in the main module as a whole."""

    @frozen
    class Mine(CachePolicy):
        name = "mine"

        def select(self, view):
            return Selection(predict=view.in_block, refresh=view.dirty)

    trial = experiment(policies=[Mine()])
    check_same(run_experiment(trial, tmp_path / "ray.jsonl", on=crew), run_experiment(trial, tmp_path / "here.jsonl"))


def test_warnings_of_workers_are_heard_here(crew, experiment, tmp_path):
    with pytest.warns(UserWarning, match="Only a warning") as heard:
        run_experiment(experiment(policies=[Talkative()], problems=8), tmp_path / "r.jsonl", on=crew)
    assert len(heard) == 1  # not once for each worker


def test_the_command_runs_on_ray(crew, checkpoint, tmp_path, monkeypatch):
    """With workers of its own, on the Ray to which this process is connected and stays so."""
    import ray

    monkeypatch.chdir(tmp_path)
    options = ["--model", checkpoint, "--task", "weave", "--problems", "2", "--gen-length", "8", "--block-length", "4"]
    command = ["compare", *options, "--policy", "dual", "--decoder", "confidence", "--on", "ray", "--workers", "1"]
    result = CliRunner().invoke(app, [*command, "--output", "r.jsonl"])
    assert result.exit_code == 0, result.output
    assert "Looking for Ray" in result.stderr
    assert "4 sequences; results go to r.jsonl" in result.stderr
    assert "\n  dual " in result.stdout
    assert ray.is_initialized()
    wait_until(lambda: cpus_in_use() == 2)
    assert len(read_results("r.jsonl").sequences) == 4


def test_what_ran_beside_is_recorded(crew, experiment, tmp_path):
    def await_the_other(progress):
        if progress.workers == 1:
            time.sleep(0.5)

    results = run_experiment(experiment(problems=100), tmp_path / "r.jsonl", await_the_other, on=crew)
    assert max(record.workers for record in results.sequences) == 2
    assert "side-by-side" in {warning.guard for warning in check_fairness(results)}


def test_an_address_beside_a_connection_is_refused(cluster, experiment):
    with pytest.raises(InputError, match="is connected to a Ray already; leave out the address host:1"):
        run_experiment(experiment(), on=OnRay(address="host:1"))


@pytest.fixture
def poisoned(crew, experiment, checkpoint, fuse, monkeypatch):
    """An experiment of which one work ends every worker that tries it."""
    monkeypatch.setattr(shift_module, "RETRIES", 1)
    trial = experiment(policies=[Mortal()], problems=4)
    fuse(str(list(all_cases(trial, load_tokenizer(checkpoint))[2].prompt)))
    return trial


def test_a_work_that_nobody_survives_is_named_and_all_else_is_kept(crew, poisoned, fuse, tmp_path):
    path, heard = tmp_path / "ray.jsonl", []
    with pytest.raises(
        WorkLostError, match=r"1 sequence is missing in .*ray\.jsonl\. 2 workers died of this,"
    ) as caught:
        run_experiment(poisoned, path, heard.append, on=crew)
    assert "one after the other: mortal with confidence on problem 2 of weave, seed 0; the last one" in str(
        caught.value
    )
    assert "Traceback" not in str(caught.value)
    assert len([progress for progress in heard if progress.note and "Given up." in progress.note]) == 1
    assert len(read_results(path).sequences) == 7
    fuse("")
    shutil.copy(path, tmp_path / "copy.jsonl")
    here = run_experiment(poisoned, tmp_path / "here.jsonl")
    check_same(run_experiment(poisoned, tmp_path / "copy.jsonl"), here)
    check_same(run_experiment(poisoned, path, on=crew), here)


class Killer:
    """Hears of progress, and kills workers at some of the moments."""

    def __init__(self, crew, moments, randomness):
        self._crew, self._moments, self._randomness = crew, set(moments), randomness
        self.notes = []

    def __call__(self, progress):
        self.notes += [progress.note] if progress.note else []
        if progress.stage == "decoding" and progress.done in self._moments:
            self._moments.remove(progress.done)
            time.sleep(self._randomness.uniform(0, 0.02))  # somewhere within what they are doing
            pids = [member.pid for member in self._crew.members if member.pid is not None]
            for pid in self._randomness.sample(pids, len(pids)):
                with contextlib.suppress(ProcessLookupError):  # it is dead already
                    os.kill(pid, signal.SIGKILL)
                    return


def test_workers_that_are_killed_lose_and_double_nothing(crew, experiment, tmp_path):
    trial = experiment(problems=6, gen_length=32, block_length=8, decoders=["confidence", "threshold"], repeats=2)
    randomness = random.Random(7)
    killer = Killer(crew, randomness.sample(range(1, 40), 2), randomness)
    on_ray = run_experiment(trial, tmp_path / "ray.jsonl", killer, Keep(traces=2), on=crew)
    check_same(on_ray, run_experiment(trial, tmp_path / "here.jsonl", keep=Keep(traces=2)))
    assert any("died (Actor" in note and "Tried again: " in note for note in killer.notes)


def cpus_in_use():
    import ray

    return ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)


def wait_until(condition):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.2)


def test_a_process_that_is_killed_while_it_writes_is_continued_there_and_here(
    cluster, crew, experiment, checkpoint, tmp_path
):
    fields = {
        "model": checkpoint, "tasks": ["weave"], "policies": ["dual"], "problems": 4, "batch_size": 2, "gen_length": 8,
        "block_length": 4, "threads": 1,
    }  # fmt: skip
    path = tmp_path / "ray.jsonl"
    process = start(path, tmp_path / "log", fields, Death(bytes_written=4000), OnRay(address=cluster, workers=1))
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL
    kept = path.read_bytes().split(b"\n")[:-1]
    assert 2 <= len(kept) < 9
    trial = experiment(**fields)
    shutil.copy(path, tmp_path / "copy.jsonl")
    on_ray = run_experiment(trial, path, on=crew)
    here = run_experiment(trial, tmp_path / "here.jsonl")
    check_same(on_ray, here)
    check_same(run_experiment(trial, tmp_path / "copy.jsonl"), here)
    whole = 1 + 2 * ((len(kept) - 1) // 2)  # without a batch that was cut off
    assert path.read_bytes().split(b"\n")[:whole] == kept[:whole]
    wait_until(lambda: cpus_in_use() == 2)  # those of the crew: whose process is dead, Ray ends


def test_ctrl_c_keeps_what_is_done_and_leaves_nobody_at_work(crew, experiment, tmp_path):
    trial = experiment(problems=4)

    def interrupt(progress):
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_experiment(trial, tmp_path / "ray.jsonl", interrupt, on=crew)
    assert len(read_results(tmp_path / "ray.jsonl").sequences) == 3
    heard = []
    on_ray = run_experiment(trial, tmp_path / "ray.jsonl", heard.append, on=crew)
    assert next(progress for progress in heard if progress.stage == "decoding").before == 3
    check_same(on_ray, run_experiment(trial, tmp_path / "here.jsonl"))


def test_a_worker_that_dies_whenever_it_starts_is_an_error(cluster, experiment, fuse, monkeypatch, tmp_path):
    monkeypatch.setattr(crew_module, "RETRIES", 0)
    fuse(ON_IMPORT)
    with OnRay(workers=1).open() as crew, pytest.raises(ClusterError, match="No worker gets ready"):
        run_experiment(experiment(policies=[Mortal()]), tmp_path / "r.jsonl", on=crew)
    assert not (tmp_path / "r.jsonl").exists()
