"""What the report prints to run an experiment again does run it again."""

import pytest
from typer.testing import CliRunner

from freshkv.cli import app
from freshkv.compare import Experiment, run_experiment
from freshkv.compare.experiment_file import read_experiment_file
from freshkv.compare.report.reproduce import experiment_file


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_length": None, "gen_length": 6, "seeds": [3, 1]},
        {"temperature": 0.7, "top_k": 3, "top_p": 0.9, "stop_at_eos": True, "batch_size": 2, "decoders": ["klass"]},
        {"tasks": ["weave", "sums"], "gen_length": None, "block_length": 16, "policies": ["none"], "problems": 1},
    ],
)
def test_the_experiment_file_continues_the_same_results(checkpoint, tmp_path, changes):
    fields = {"tasks": ["weave"], "policies": ["dual"], "problems": 2, "gen_length": 8, "block_length": 4, **changes}
    results = run_experiment(Experiment(model=checkpoint, **fields), tmp_path / "results.jsonl")
    (tmp_path / "again.toml").write_text(experiment_file(results.header), encoding="utf-8")
    before = results.path.read_bytes()
    again = run_experiment(read_experiment_file(tmp_path / "again.toml").experiments[0], results.path)
    assert again.header == results.header
    assert results.path.read_bytes() == before


def test_the_command_of_the_report_runs_the_file(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = Experiment(
        model=checkpoint, tasks=["weave"], policies=["none"], problems=1, gen_length=8, block_length=4
    )
    results = run_experiment(experiment, tmp_path / "results.jsonl")
    (tmp_path / "experiment.toml").write_text(experiment_file(results.header), encoding="utf-8")
    done = CliRunner().invoke(app, ["compare", "experiment.toml", "--output", "results.jsonl"])
    assert done.exit_code == 0, done.output
    assert "All 1 sequences are in results.jsonl from an earlier run." in done.stderr
