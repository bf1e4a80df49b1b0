"""Traces and drifts beside results: single sequences, complete, under names of their own, and made up for later."""

import pytest
import torch
from attrs import evolve

from freshkv.compare import beside as beside_module
from freshkv.compare import measure_drift, run_experiment
from freshkv.compare.beside import Keep
from freshkv.compare.cases import all_cases
from freshkv.compare.measure import Subject, decode
from freshkv.compare.schedule import Work
from freshkv.compare.traces import (
    cut_sequence,
    drift_path,
    load_drifts,
    load_traces,
    save_trace,
    trace_path,
    traces_folder,
)
from freshkv.core.errors import InputError, ResultsError
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer


@pytest.fixture
def subject(checkpoint):
    return Subject(load(checkpoint), load_tokenizer(checkpoint))


@pytest.mark.parametrize("policy", ["none", "dual", "dllm:kp=4,kr=3"])
@pytest.mark.parametrize("decoder", ["threshold:threshold=0.4", "wino"])
def test_a_sequence_cut_from_a_batch_is_that_sequence_alone(subject, experiment, policy, decoder):
    made = experiment(policies=[policy], decoders=[decoder], tasks=["weave", "sums"], problems=2)
    cases = all_cases(made, subject.tokenizer)
    entry = next(entry for entry in made.entries if entry.policy.spec == policy)
    # prompts of two tasks differ in length, so that one is padded
    batch = (cases[0], cases[2])
    assert len(batch[0].prompt) != len(batch[1].prompt)
    trace = decode(subject, made, Work(entry, batch)).trace
    for place, case in enumerate(batch):
        alone = decode(subject, made, Work(entry, (case,))).trace
        cut = cut_sequence(trace, place)
        assert (len(cut), cut.prompt_length) == (len(alone), alone.prompt_length)
        assert cut.facts == alone.facts
        for mine, own in zip(cut, alone, strict=True):
            for name in ("tokens", "committed", "remasked", "refreshed", "added", "predicted", "active"):
                assert torch.equal(getattr(mine, name), getattr(own, name)), name
            assert torch.allclose(mine.confidence, own.confidence, atol=1e-5)
            assert all(torch.equal(mine.layer(layer), own.layer(layer)) for layer in range(len(own.rows_by_layer)))
            if decoder != "wino":  # shadow rows of a batch are known as a sum only
                assert mine.rows_by_layer == own.rows_by_layer


def test_a_trace_survives_its_file(subject, experiment, tmp_path):
    made = experiment(policies=["dllm:kp=4"])
    case, entry = all_cases(made, subject.tokenizer)[0], made.entries[1]
    run = decode(subject, made, Work(entry, (case,)))
    save_trace(tmp_path / "r.jsonl", case, run.trace, 0, subject.tokenizer)
    (saved,) = load_traces(tmp_path / "r.jsonl")
    assert (saved.entry, saved.case) == (entry.key, case.key)
    assert (saved.prompt, saved.answer) == (case.problem.prompt, case.problem.answer)
    assert torch.equal(saved.trace[-1].tokens, run.trace[-1].tokens)
    ids = set(run.sequences[0].tolist()) | {saved.trace.mask_token_id}
    assert saved.words == {token: subject.tokenizer.decode([token]) for token in ids}


def test_names_are_deterministic_and_differ(tmp_path):
    keys = [
        (("none", "confidence"), ("weave", 0, 0)),
        (("d2cache:current_k=4", "confidence"), ("weave", 0, 0)),
        (("d2cache:current_k=8", "confidence"), ("weave", 0, 0)),
        (("none", "confidence"), ("weave", 0, 1)),
        (("none", "confidence"), ("weave", 1, 0)),
        (("none", "confidence"), ("../we/ave", 0, 0)),
    ]
    paths = [trace_path(tmp_path / "r.jsonl", *key) for key in keys]
    assert len(set(paths)) == len(keys)
    assert paths == [trace_path(tmp_path / "r.jsonl", *key) for key in keys]
    assert {path.parent for path in paths} == {tmp_path / "r.jsonl.traces"}
    assert paths[0].name.startswith("weave-0-0-none-confidence-")


def files(path):
    return sorted(file.name for file in traces_folder(path).iterdir())


def test_an_experiment_keeps_what_it_is_told_to(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    made = experiment(problems=3, batch_size=2)
    run_experiment(made, path, keep=Keep(traces=2))
    expected = {(entry.key, ("weave", 0, index)) for entry in made.entries for index in range(2)}
    assert {(saved.entry, saved.case) for saved in load_traces(path)} == expected
    assert load_drifts(path) == ()
    records = {(record.entry, record.case): record for record in run_experiment(made, path).sequences}
    for saved in load_traces(path):
        response = saved.trace[-1].tokens[0, saved.trace.prompt_length :]
        assert tuple(response.tolist()) == records[saved.entry, saved.case].response


def test_nothing_is_kept_unless_asked_for(experiment, tmp_path):
    run_experiment(experiment(), tmp_path / "r.jsonl")
    assert not traces_folder(tmp_path / "r.jsonl").exists()


def test_what_is_missing_is_made_up_for_without_measuring_again(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(), path)
    before = path.read_bytes()
    doing = []
    run_experiment(experiment(), path, lambda progress: doing.append(progress.doing), Keep(traces=1, drift=1))
    assert path.read_bytes() == before
    assert len(files(path)) == 4
    assert "drift: weave, dual with confidence" in doing
    victim = next(traces_folder(path).glob("*dual*.trace.safetensors"))
    whole, kept = victim.read_bytes(), files(path)
    victim.unlink()
    run_experiment(experiment(), path, keep=Keep(traces=1, drift=1))
    assert files(path) == kept
    assert load_traces(path)
    assert len(victim.read_bytes()) == len(whole)


def test_a_drift_is_that_of_its_sequence(subject, experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    made = experiment()
    run_experiment(made, path, keep=Keep(drift=1))
    case = all_cases(made, subject.tokenizer)[0]
    saved = next(saved for saved in load_drifts(path) if saved.entry[0] == "dual")
    assert saved.case == case.key
    own = measure_drift(subject.model, torch.tensor([case.prompt]), policy="dual", gen_length=8, block_length=4, seed=0)
    assert torch.equal(saved.drift.values_cosine, own.values_cosine)
    assert drift_path(path, saved.entry, saved.case).exists()


def test_a_drift_that_cannot_be_measured_is_a_warning(experiment, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no truth today")

    monkeypatch.setattr(beside_module, "measure_drift", fail)
    with pytest.warns(UserWarning, match=r"There is no drift of .* \(RuntimeError: no truth today\)"):
        results = run_experiment(experiment(policies=["none"], problems=1), tmp_path / "r.jsonl", keep=Keep(drift=1))
    assert len(results.sequences) == 1


def test_a_failed_entry_has_no_trace_and_is_not_tried_again_for_one(experiment, broken, tmp_path):
    path = tmp_path / "r.jsonl"
    results = run_experiment(experiment(policies=["none", broken]), path, keep=Keep(traces=1, drift=1))
    assert len(results.failures) == 1
    assert len(files(path)) == 2


def test_a_folder_that_cannot_be_made_is_an_error_that_loses_nothing(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(problems=1), path)
    before = path.read_bytes()
    traces_folder(path).write_text("a file in its place")
    with pytest.raises(ResultsError, match="--traces 0"):
        run_experiment(experiment(problems=1), path, keep=Keep(traces=1))
    assert path.read_bytes() == before


def test_files_of_something_else_are_named(experiment, subject, tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(problems=1), path, keep=Keep(traces=1, drift=1))
    trace = next(traces_folder(path).glob("*.trace.safetensors"))
    evolved = load_traces(path)[0].trace
    evolve(evolved, facts={}).save(trace)
    with pytest.raises(ResultsError, match="was not saved by a comparison"):
        load_traces(path)
    trace.write_bytes(b"cut off")
    with pytest.raises(ResultsError, match="Cannot read a trace"):
        load_traces(path)
    drift = next(traces_folder(path).glob("*.drift.safetensors"))
    drift.write_bytes(b"cut off")
    with pytest.raises(ResultsError, match="Cannot read a drift"):
        load_drifts(path)


@pytest.mark.parametrize("value", [-1, True, 1.5, "1"])
def test_counts_are_checked(value):
    with pytest.raises(InputError, match="whole number"):
        Keep(traces=value)
