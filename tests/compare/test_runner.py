"""What an experiment measures, and in which order."""

import json

import pytest

from freshkv.compare import Experiment, read_results, run_experiment, runner, summarize
from freshkv.core.errors import CheckpointError, ResultsError


@pytest.fixture
def decoded(monkeypatch):
    """The work that was done, in order, warm-up included."""
    seen = []
    original = runner.decode

    def spy(subject, experiment, work):
        seen.append(work)
        return original(subject, experiment, work)

    monkeypatch.setattr(runner, "decode", spy)
    return seen


def names(works):
    return [(work.entry.policy.name, work.cases[0].task.name, work.cases[0].index) for work in works]


def test_entries_take_turns_after_one_warm_up_each(experiment, tmp_path, decoded):
    run_experiment(experiment(tasks=["weave", "sums"]), tmp_path / "r.jsonl")
    warm_up, counted = names(decoded[:2]), names(decoded[2:])
    assert warm_up == [("none", "weave", 0), ("dual", "weave", 0)]
    assert counted == [(p, task, i) for i in range(2) for task in ("weave", "sums") for p in ("none", "dual")]


def test_all_entries_get_the_same_prompts_and_seeds(experiment, tmp_path, decoded):
    run_experiment(experiment(decoders=["confidence", "threshold"], seeds=[0, 1]), tmp_path / "r.jsonl")
    handed = {}
    for work in decoded[4:]:
        handed.setdefault(work.entry.key, []).append([(case.prompt, case.sampling_seed) for case in work.cases])
    assert len(handed) == 4
    first, *others = handed.values()
    assert len(first) == 4
    assert all(other == first for other in others)


def test_records_are_true(experiment, tmp_path):
    results = run_experiment(experiment(), tmp_path / "r.jsonl")
    assert len(results.sequences) == 4
    for record in results.sequences:
        assert (record.forwards, record.canvas, record.tokens_produced) == (8, 18 + 8, 8)
        assert len(record.response) == len(record.text.split()) == 8
        assert record.seconds > 0
        assert record.peak_bytes > record.cache_bytes > 0
    none, dual = results.sequences[:2]
    assert none.rows_computed == 8 * 26
    assert dual.rows_computed == 2 * 26 + 6 * 4


def test_the_header_says_what_ran(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(policies=["d2cache:sigma=10,current_k=4"], seeds=[7]), path)
    header = json.loads(path.read_text().splitlines()[0])
    facts, environment = header["experiment"], header["environment"]
    assert facts["policies"] == ["none", "d2cache:current_k=4"]
    assert facts["origins"] == {"none": "built-in", "d2cache": "built-in", "confidence": "built-in"}
    assert (facts["seeds"], facts["problems"], facts["dtype"], facts["device"]) == ([7], 2, "float32", "cpu")
    assert len(facts["model_hash"]) == len(facts["task_hashes"]["weave"]) == 64
    assert {"freshkv", "torch", "transformers", "python", "device", "threads"} <= environment.keys()


def test_batches_give_the_results_of_single_sequences(experiment, tmp_path):
    single = run_experiment(experiment(problems=3, policies=["dllm"]), tmp_path / "a.jsonl")
    batched = run_experiment(experiment(problems=3, policies=["dllm"], batch_size=2), tmp_path / "b.jsonl")
    responses = [{(r.entry, r.case): r.response for r in results.sequences} for results in (single, batched)]
    assert responses[0] == responses[1]
    assert len(set(responses[0].values())) > 2
    assert {record.batch for record in batched.sequences} == {1, 2}
    for one, two in zip(summarize(single), summarize(batched), strict=True):
        assert one.rows_share == pytest.approx(two.rows_share)
        assert one.forwards == two.forwards


def test_sampling_is_the_same_in_every_batch_and_differs_between_problems(experiment, tmp_path):
    options = {"temperature": 1.0, "policies": ["none"], "problems": 3}
    single = run_experiment(experiment(**options), tmp_path / "a.jsonl")
    batched = run_experiment(experiment(**options, batch_size=3), tmp_path / "b.jsonl")
    responses = [r.response for r in single.sequences]
    assert responses == [r.response for r in batched.sequences]
    assert len(set(responses)) == 3


def test_a_broken_entry_is_recorded_and_the_others_go_on(experiment, tmp_path, broken):
    heard = []
    results = run_experiment(experiment(policies=["none", broken, "dual"]), tmp_path / "r.jsonl", heard.append)
    assert {record.policy for record in results.sequences} == {"none", "dual"}
    assert len(results.sequences) == 4
    (failure,) = results.failures
    assert (failure.policy, failure.error) == ("broken", "PolicyError")
    assert "no such row" in failure.message
    assert [progress.failure for progress in heard if progress.failure] == [failure]
    assert (heard[0].total, heard[-1].total, heard[-1].done) == (6, 4, 4)
    summary = next(s for s in summarize(results) if s.policy == "broken")
    assert (summary.accuracy, summary.failure) == (None, failure)


def test_a_mended_entry_is_tried_again(experiment, tmp_path, broken, monkeypatch):
    path = tmp_path / "r.jsonl"
    run_experiment(experiment(policies=[broken]), path)
    monkeypatch.setattr(type(broken), "select", type(experiment().policies[0]).select)
    results = run_experiment(experiment(policies=[broken]), path)
    assert len(results.failures) == 1
    assert not results.open_failures
    assert len(results.sequences) == 4


def test_progress_counts_up_to_the_total(experiment, tmp_path):
    heard = []
    run_experiment(experiment(), tmp_path / "r.jsonl", heard.append)
    assert [progress.done for progress in heard] == [0, 0, 0, 1, 2, 3, 4]
    assert {progress.total for progress in heard} == {4}


def test_the_default_file_belongs_to_the_experiment(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_experiment(experiment(problems=1))
    again = run_experiment(experiment(problems=1))
    other = run_experiment(experiment(problems=1, seeds=[1]))
    assert first.path == again.path != other.path
    assert first.path.parent.name == "results"
    assert first.sequences == again.sequences


def test_a_folder_without_a_tokenizer_is_named(experiment, checkpoint, tmp_path):
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(checkpoint, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        run_experiment(experiment(model=str(folder)), tmp_path / "r.jsonl")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        run_experiment(experiment(model=str(folder)), tmp_path / "r.jsonl")


def test_threads_are_put_back(experiment, tmp_path):
    import torch

    before = torch.get_num_threads()
    results = run_experiment(experiment(threads=before + 1, problems=1), tmp_path / "r.jsonl")
    assert results.header.environment["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_an_unknown_model_is_named(tmp_path):
    from freshkv.core.errors import UnknownNameError

    with pytest.raises(UnknownNameError, match="Unknown model 'nobody'"):
        run_experiment(Experiment(model="nobody"), tmp_path / "r.jsonl")
    with pytest.raises(ResultsError, match="Cannot read"):
        read_results(tmp_path / "r.jsonl")
