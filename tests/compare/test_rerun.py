"""A results file holds everything needed to run it again."""

import json

import pytest

from freshkv.compare import read_results, run_experiment
from freshkv.compare.experiment import FIELDS
from freshkv.compare.rerun import check_model, compare_runs, experiment_of
from freshkv.core.errors import ResultsError
from tests.compare.checkpoint import save_checkpoint
from tests.compare.test_resume import content

UNUSUAL = {
    "tasks": ["weave"], "policies": ["d2cache:current_k=2|4"], "decoders": ["confidence:score=margin"],
    "problems": 2, "repeats": 2, "seeds": [3, 1],
    "gen_length": 8, "block_length": 4, "batch_size": 2, "temperature": 0.7, "top_k": 20, "top_p": 0.9,
    "stop_at_eos": True, "raw_prompts": True, "dtype": "float64", "threads": 1,
}  # fmt: skip


def header(path, **changes):
    first = path.read_text().splitlines()[0]
    return json.loads(first) | changes


def test_results_are_run_again_to_the_same_tokens(experiment, tmp_path):
    """From the file alone: with sampling, batches, repeats, another dtype."""
    first = run_experiment(experiment(**UNUSUAL), tmp_path / "first.jsonl")
    again = run_experiment(experiment_of(read_results(first.path).header), tmp_path / "again.jsonl")
    assert content(again) == content(first)
    assert len({record.response for record in first.sequences}) > 4
    agreement = compare_runs(first, again)
    assert (agreement.sequences, agreement.same, agreement.differences) == (24, 24, ())
    assert again.header.experiment == first.header.experiment


def test_an_experiment_survives_its_header(experiment, tmp_path):
    trial = experiment(**{**UNUSUAL, "problems": 1, "policies": ["dual"], "repeats": 1, "match_budget": 0.5})
    results = run_experiment(trial, tmp_path / "r.jsonl")
    read = experiment_of(results.header)
    for name in FIELDS:
        mine, theirs = ([getattr(each, "spec", type(each)) for each in value] if isinstance(value, tuple) else value
                        for value in (getattr(trial, name), getattr(read, name)))  # fmt: skip
        assert mine == theirs, name


def test_the_own_length_of_a_task_stays_its_own(experiment, tmp_path):
    results = run_experiment(experiment(gen_length=None, problems=1, policies=["none"]), tmp_path / "r.jsonl")
    assert experiment_of(results.header).gen_length is None


def test_what_changed_since_is_said(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    results = run_experiment(experiment(tasks=["sums", "weave"], gen_length=None, problems=1, policies=["none"]), path)
    lines = path.read_text().splitlines(keepends=True)
    changed = header(path)
    changed["experiment"]["gen_lengths"] = {"sums": 60, "weave": 64}
    path.write_text("".join([json.dumps(changed) + "\n", *lines[1:]]))
    with pytest.raises(ResultsError, match=r"responses of 60 \(sums\), 64 \(weave\) tokens; in this version"):
        experiment_of(read_results(path).header)
    del changed["experiment"]["gen_lengths"], changed["experiment"]["seeds"]
    path.write_text(json.dumps(changed) + "\n")
    with pytest.raises(ResultsError, match="has no seeds, no gen_lengths"):
        experiment_of(read_results(path).header)
    assert len(results.sequences) == 2


def test_other_weights_are_found_out_before_any_work(experiment, tmp_path):
    results = run_experiment(experiment(problems=1), tmp_path / "r.jsonl")
    check_model(results, experiment())
    other = str(save_checkpoint(tmp_path / "other", seed=1))
    with pytest.raises(ResultsError, match=r"is not the model of .*r\.jsonl: its hash is"):
        check_model(results, experiment(model=other))


def test_another_environment_is_named_beside_the_agreement(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    first = run_experiment(experiment(problems=1), path)
    lines = path.read_text().splitlines(keepends=True)
    changed = header(path)
    changed["environment"]["torch"] = "1.0"
    record = json.loads(lines[1])
    record["response"] = [*record["response"][::-1], 0]
    path.write_text("".join([json.dumps(changed) + "\n", json.dumps(record) + "\n", *lines[2:]]))
    agreement = compare_runs(read_results(path), first)
    assert (agreement.sequences, agreement.same) == (2, 1)
    assert any("torch is 1.0 there" in difference for difference in agreement.differences)


def test_a_header_names_everything_that_can_change_results(experiment, tmp_path):
    """Every field of an experiment, the versions of what computes, and how torch is set."""
    results = run_experiment(experiment(problems=1), tmp_path / "r.jsonl")
    facts, environment = results.header.experiment, results.header.environment
    held_otherwise = {"model": "model_hash", "gen_length": "gen_lengths", "threads": "dtype"}
    assert {held_otherwise.get(name, name) for name in FIELDS} <= facts.keys()
    assert {"freshkv", "torch", "transformers", "tokenizers", "python", "platform", "cuda", "device", "threads"} <= set(
        environment
    )
    assert (environment["matmul_precision"], environment["deterministic"]) == ("highest", False)
    assert facts["model_origin"] == facts["task_origins"]["weave"] == "built-in"
