"""A worker's own side, without Ray."""

import pickle
import platform

import pytest
import torch
from attrs import evolve

from freshkv.compare import Keep
from freshkv.compare.beside import Beside
from freshkv.compare.cases import all_cases
from freshkv.compare.cluster import worker as worker_module
from freshkv.compare.cluster.errand import Job
from freshkv.compare.cluster.worker import Worker
from freshkv.compare.measure import Subject
from freshkv.compare.runner import perform
from freshkv.compare.schedule import first_works, plan_work
from freshkv.compare.traces import traces_folder
from freshkv.core.errors import CheckpointError, ClusterError, ResultsError
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def settings_of_torch():
    """As they were: a worker has a process of its own, and sets them for good."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])
    torch.use_deterministic_algorithms(before[2])


def job_of(experiment, keep=None, **changes):
    fields = {"threads": 1, "matmul_precision": "highest", "deterministic": False, "cpus": 1, "gpus": 0}
    return Job(payload=pickle.dumps((experiment, keep or Keep())), **{**fields, **changes})


@pytest.fixture
def loaded(monkeypatch):
    """The models that were loaded, one after the other."""
    seen = []
    monkeypatch.setattr(worker_module, "load", lambda model, **options: seen.append(model) or load(model, **options))
    return seen


def test_a_model_is_loaded_once_for_all_experiments_with_it(experiment, loaded):
    worker, trial = Worker(), experiment()
    for each in (trial, trial, experiment(problems=3), experiment(block_length=8)):
        worker.ready(job_of(each), None)
    assert loaded == [trial.model]
    worker.ready(job_of(experiment(dtype="bfloat16")), None)
    assert len(loaded) == 2


def test_it_computes_as_the_process_that_asks(experiment):
    job = job_of(experiment(), threads=2, matmul_precision="high", deterministic=True)
    environment = Worker().ready(job, None).value.header.environment
    assert (environment["threads"], environment["matmul_precision"], environment["deterministic"]) == (2, "high", True)


def test_one_that_is_unlike_the_first_says_in_what(experiment):
    job = job_of(experiment())
    first = Worker().ready(job, None).value.header
    assert Worker().ready(job, first).value.cases is None
    other = evolve(first, environment={**first.environment, "torch": "1.0", "device": "Abacus"})
    words = rf"on {platform.node()}, here\): torch is 1\.0 there and .* here; device is Abacus there"
    with pytest.raises(ResultsError, match=words):
        Worker().ready(job, other)


def test_what_cannot_be_set_up_names_the_machine(experiment, monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match=f"On {platform.node()}: There is no folder"):
        Worker().ready(job_of(experiment(model=str(tmp_path / "nowhere"))), None)
    with pytest.raises(
        ClusterError, match=f"On {platform.node()}: The experiment needs something that its module does"
    ):
        Worker().ready(evolve(job_of(experiment()), payload=b"cfreshkv.compare\nNoSuchThing\n."), None)

    def fail(*_, **__):
        raise MemoryError("17 GB")

    monkeypatch.setattr(worker_module, "load", fail)
    with pytest.raises(ClusterError, match=r"cannot be set up \(MemoryError: 17 GB\)\. See that the model fits"):
        Worker().ready(job_of(experiment()), None)


def test_one_that_was_started_again_says_so(experiment):
    worker = Worker()
    assert (worker.decode(None, None), worker.make("trace", None), worker.calibrate(0, 0)) == (None, None, None)


def test_each_entry_is_warmed_up_once_with_its_first_work(experiment, monkeypatch):
    trial = experiment(problems=3)
    worker = Worker()
    works = plan_work(trial, worker.ready(job_of(trial), None).value.cases, ())
    done = []

    def spy(subject, experiment, work, on_run=None):
        done.append((work.entry.policy.name, work.cases[0].index, on_run is not None))
        return perform(subject, experiment, work, on_run)

    monkeypatch.setattr(worker_module, "perform", spy)
    first = first_works(works)
    for work in works[2:]:
        worker.decode(work, first[work.entry.key])
    counted = [(work.entry.policy.name, work.cases[0].index, True) for work in works[2:]]
    assert done == [("none", 0, False), counted[0], ("dual", 0, False), *counted[1:]]


def test_files_are_those_that_would_lie_beside_results(experiment, tmp_path):
    trial, keep = experiment(problems=1), Keep(traces=1, drift=1)
    worker = Worker()
    worker.ready(job_of(trial, keep), None)
    subject = Subject(load(trial.model), load_tokenizer(trial.model))
    beside = Beside(subject=subject, experiment=trial, results=tmp_path / "r.jsonl", keep=keep)
    sent = {}
    for work in plan_work(trial, all_cases(trial, subject.tokenizer), ()):
        for answer in (worker.decode(work, work), worker.make("drift", work)):
            sent |= dict(answer.files)
        perform(subject, trial, work, beside.after_run)
        beside.make("drift", work)
    assert sent == {path.name: path.read_bytes() for path in traces_folder(tmp_path / "r.jsonl").iterdir()}
    assert len(sent) == 4
