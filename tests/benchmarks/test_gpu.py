"""The benchmark for GPUs, tried on the CPU with a tiny network."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Measured
from benchmarks.networks import SHAPES, Shape

TINY = Shape(name="tiny", width=16, layers=2, heads=2, feed_forward=24, vocabulary=30)


def test_it_measures_every_policy_and_batch(monkeypatch, tmp_path):
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setattr(gpu, "bandwidth", lambda device: 1e9)
    path = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--shape", "tiny", "--dtype", "float32", "--prompt", "8", "--response", "8"]
    monkeypatch.setattr("sys.argv", ["gpu", *options, "--block", "4", "--batch", "1", "2",
                                     "--policy", "dual", "none", "--output", str(path)])  # fmt: skip
    gpu.main()
    runs = json.loads(path.read_text())["runs"]
    assert [(run["batch"], run["policy"]) for run in runs] == [(1, "dual"), (1, "none"), (2, "dual"), (2, "none")]
    assert all(run["step_seconds"] > 0 and run["tokens_per_second"] > 0 for run in runs)
    # the embedding, the head, their norms and the layers, four bytes each
    elements = TINY.parameters + (2 * TINY.layers + 1) * TINY.width
    assert {run["weight_seconds"] for run in runs} == {4 * elements / 1e9}


def test_a_step_is_told_in_readings_of_the_weights():
    run = Measured(policy="dual", batch=1, cuda_graphs=True, step_seconds=0.012, tokens_per_second=80.0,
                   peak_bytes=0, weight_seconds=0.008)  # fmt: skip
    assert run.over_weights == pytest.approx(1.5)


def test_bandwidth_is_bytes_over_time():
    assert gpu.bandwidth("cpu", mebibytes=1, times=2) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main()
