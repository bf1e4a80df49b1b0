"""Where Ray is looked for, and what is said where there is none."""

import os
import socket
import sys

import pytest

from freshkv.compare import OnRay, run_experiment
from freshkv.compare.cluster.connection import STATISTICS, connected
from freshkv.compare.cluster.session import make_job, model_for_workers
from freshkv.core.errors import ClusterError, InputError


class Ray:
    """What connecting uses of Ray; ``there`` is whether one runs on this machine."""

    def __init__(self, there=False, connected=False, error=None):
        self._there, self._connected, self._error = there, connected, error
        self.calls = []

    def is_initialized(self):
        return self._connected

    def init(self, address, **options):
        self.calls.append((address, os.environ.get(STATISTICS), sorted(options)))
        if self._error is not None:
            raise self._error
        if address == "auto" and not self._there:
            raise ConnectionError("Could not find any running Ray instance.")

    def shutdown(self):
        self.calls.append("shutdown")


QUIET = ["log_to_driver", "logging_level"]
LOCAL = ("local", "0", ["include_dashboard", *QUIET, "object_store_memory"])


@pytest.mark.parametrize(
    ("ray", "address", "calls"),
    [
        (Ray(), None, [("auto", None, QUIET), LOCAL, "shutdown"]),
        (Ray(there=True), None, [("auto", None, QUIET), "shutdown"]),
        (Ray(there=True), "auto", [("auto", None, QUIET), "shutdown"]),
        (Ray(there=True), "local", [LOCAL, "shutdown"]),
        (Ray(connected=True), None, []),
        (Ray(connected=True), "auto", []),
    ],
)
def test_a_ray_that_is_there_is_used_and_one_that_is_started_reports_nothing(ray, address, calls, monkeypatch):
    monkeypatch.delenv(STATISTICS, raising=False)
    with connected(ray, address):
        pass
    assert ray.calls == calls
    assert STATISTICS not in os.environ


def test_who_wants_to_report_use_may(monkeypatch):
    monkeypatch.setenv(STATISTICS, "1")
    ray = Ray()
    with connected(ray, "local"):
        assert ray.calls == [("local", "1", LOCAL[2])]
    assert os.environ[STATISTICS] == "1"


def test_a_start_that_takes_too_long_is_tried_once_more():
    class Slow(Ray):
        def init(self, address, **options):
            super().init(address, **options)
            if len(self.calls) == 1:
                raise Exception("The current node timed out during startup.")

    ray = Slow()
    with connected(ray, "local"):
        pass
    assert [call if call == "shutdown" else call[0] for call in ray.calls] == ["local", "shutdown", "local", "shutdown"]


def test_no_ray_at_an_address_is_an_error_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        ray = Ray()
        with pytest.raises(ClusterError, match=f"cannot be reached or started at {address}"), connected(ray, address):
            pass
        assert ray.calls == ["shutdown"]


def test_what_ray_complains_of_is_told():
    ray = Ray(error=RuntimeError("Version mismatch:\n  Ray: 1\n"))
    words = r"at auto \(RuntimeError: Version mismatch: Ray: 1\)\. .* in the same versions of Python and Ray"
    with pytest.raises(ClusterError, match=words), connected(ray, "auto"):
        pass


def test_without_ray_installed_the_error_says_what_to_install(experiment, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'freshkv\[ray\]'"):
        run_experiment(experiment(), tmp_path / "r.jsonl", on="ray")


@pytest.mark.parametrize("on", ["rey", None, 3])
def test_a_place_that_is_none_is_refused(experiment, on):
    with pytest.raises(InputError, match="expected here, ray or an OnRay"):
        run_experiment(experiment(), on=on)


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "2"])
def test_a_number_of_workers_that_is_none_is_refused(workers):
    with pytest.raises(InputError, match="expected a whole number of at least 1"):
        OnRay(workers=workers)


class Pickler:
    """A crew, as far as jobs need one."""

    class ray:  # noqa: N801 - a module
        import pickle as cloudpickle


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({"threads": 3}, (3, 3, 0)),
        ({"model": "tiny-llada"}, (1, 1, 0)),
        ({"device": "cuda", "threads": 3}, (3, 3, 1)),
        ({"device": "cuda"}, (2, 1, 1)),
        ({}, (2, 2, 0)),
    ],
)
def test_what_a_worker_needs(experiment, monkeypatch, changes, needs):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    job = make_job(Pickler, experiment(**changes), None)
    assert (job.threads, job.cpus, job.gpus) == needs


def test_a_numbered_gpu_is_refused(experiment):
    with pytest.raises(InputError, match="gives each worker a GPU of its own, it is 'cuda'"):
        make_job(Pickler, experiment(device="cuda:1"), None)


def test_workers_find_a_folder_wherever_they_run(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_for_workers("model") == str(tmp_path / "model")
    assert model_for_workers("tiny-llada") == "tiny-llada"
    assert model_for_workers("GSAI-ML/LLaDA-8B-Base") == "GSAI-ML/LLaDA-8B-Base"
