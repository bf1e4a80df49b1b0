"""A sweep is every combination of its axes, each an experiment with a results file of its own."""

import pickle
import shutil

import pytest

from freshkv.compare import read_results, summarize
from freshkv.compare import sweep as sweep_module
from freshkv.compare.cases import all_cases
from freshkv.compare.experiment import MOST_ENTRIES, Experiment
from freshkv.compare.measure import Subject
from freshkv.compare.records import FailureRecord
from freshkv.compare.runner import perform, run_experiment, works_left
from freshkv.compare.sweep import AXES, Sweep, run_sweep
from freshkv.core.errors import InputError, ResultsError, SpecError, UnknownNameError, WorkLostError
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer


def specs(parts):
    return [part.spec for part in parts]


def test_grids_of_policies_and_decoders_are_written_out():
    experiment = Experiment(
        policies=["d2cache:current_k=8|16", "d2cache:current_k=16..32..8"], decoders="factor:factor=0.5..1..0.5"
    )
    assert specs(experiment.policies) == [
        "none", "d2cache:current_k=8", "d2cache:current_k=16", "d2cache:current_k=24", "d2cache",
    ]  # fmt: skip
    assert specs(experiment.decoders) == ["factor:factor=0.5", "factor"]
    assert len(experiment.entries) == 10
    assert experiment.sequences == 10 * 3 * 20


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"policies": "d2cache:current_k=0|8"}, SpecError, "It is one of the 2 that 'd2cache:current_k=0|8' stands"),
        ({"policies": "d2cach:current_k=4|8"}, UnknownNameError, "Did you mean 'd2cache'"),
        ({"policies": "d2cache:current_k=8..4..2"}, SpecError, "never reaches its end"),
        (
            {"policies": "d2cache:current_k=1..500..1", "decoders": "factor:factor=1|2|3"},
            InputError, f"501 policies with 3 decoders make 1503 entries; at most {MOST_ENTRIES}",
        ),
    ],
)  # fmt: skip
def test_a_grid_that_does_not_work_is_refused(changes, error, words):
    with pytest.raises(error, match=words.replace("|", r"\|")):
        Experiment(**changes)


def test_a_sweep_is_the_product_of_its_axes():
    sweep = Sweep(
        fields={"policies": "dual", "tasks": "weave"},
        axes={"model": ["tiny-llada", "tiny-dream"], "block_length": [8, None], "temperature": [0, 0.0]},
    )
    settings = [(each.model, each.block_length, each.temperature) for each in sweep.experiments]
    assert settings[:4] == [
        ("tiny-llada", 8, 0.0),
        ("tiny-llada", 8, 0.0),
        ("tiny-llada", None, 0.0),
        ("tiny-llada", None, 0.0),
    ]
    assert [experiment.model for experiment in sweep.experiments[4:]] == ["tiny-dream"] * 4
    assert sweep.names[0] == "tiny-llada-block_length=8-temperature=0"
    assert len(set(sweep.names)) == 8
    assert all(specs(experiment.policies) == ["none", "dual"] for experiment in sweep.experiments)


def test_values_that_are_there_twice_are_one():
    assert len(Sweep(axes={"block_length": [8, 8, 16]}).experiments) == 2


def test_a_sweep_without_axes_is_one_experiment():
    assert [experiment.problems for experiment in Sweep(fields={"problems": 3}).experiments] == [3]


def test_models_of_one_name_in_two_folders_get_two_files():
    assert Sweep(axes={"model": ["a/net", "b/net", "c/net~2"]}).names == ("net", "net~2", "net-2")


@pytest.mark.parametrize(
    ("fields", "axes", "words"),
    [
        ({}, {"polices": [1]}, "'polices' cannot be swept"),
        ({}, {"modle": ["a"]}, "Did you mean 'model'"),
        ({}, {"policies": ["dual"]}, "policies cannot be swept: an experiment takes a list of them"),
        ({}, {"block_length": []}, "The sweep over block_length is empty"),
        ({}, {"block_length": 8}, "expected a list of values"),
        ({}, {"model": "tiny-llada"}, "expected a list of values"),
        ({"block_length": 8}, {"block_length": [8]}, "given twice"),
        ({"probelms": 8}, {}, "Did you mean 'problems'"),
        ({}, {"block_length": [8, 7]}, "With block_length = 7: block_length 7 does not divide"),
        ({}, {"problems": list(range(1, 50)), "top_k": list(range(1, 50))}, "has 2401 experiments; at most 1000"),
    ],
)
def test_a_sweep_that_does_not_work_is_refused_before_any_work(fields, axes, words):
    with pytest.raises(InputError, match=words):
        Sweep(fields=fields, axes=axes)


def test_every_field_of_one_value_is_an_axis():
    assert {"model", "gen_length", "block_length", "temperature", "repeats", "batch_size", "dtype"} <= set(AXES)


@pytest.fixture
def sweep(checkpoint, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    fields = {"tasks": ["weave"], "policies": ["dual"], "problems": 1, "block_length": 4, "gen_length": 8}
    return Sweep(fields=fields, axes={"model": [checkpoint, str(other)]})


def test_a_sweep_has_a_file_for_each_experiment_and_continues(sweep, tmp_path):
    heard = []
    first = run_sweep(sweep, tmp_path / "sweep", heard.append)
    assert [results.path.stem for results in first] == list(sweep.names)
    assert [len(results.sequences) for results in first] == [2, 2]
    assert {progress.total for progress in heard} == {4}
    assert [progress.done for progress in heard] == sorted(progress.done for progress in heard)
    assert (heard[0].before, heard[-1].done, heard[0].path) == (0, 4, tmp_path / "sweep")
    data = [results.path.read_bytes() for results in first]
    second = first[1].path
    second.write_bytes(b"".join(data[1].splitlines(keepends=True)[:2]))
    heard.clear()
    again = run_sweep(sweep, tmp_path / "sweep", heard.append)
    assert (heard[0].before, heard[-1].done) == (3, 4)
    assert again[0].path.read_bytes() == data[0]
    assert again[0].sequences == first[0].sequences
    assert [r.response for r in again[1].sequences] == [r.response for r in first[1].sequences]


def test_a_file_of_another_sweep_is_refused(sweep, tmp_path):
    run_sweep(sweep, tmp_path / "sweep")
    other = Sweep(fields={**sweep.fields, "problems": 2}, axes=sweep.axes)
    with pytest.raises(ResultsError, match="problems is 1 there and 2 here"):
        run_sweep(other, tmp_path / "sweep")


def test_a_model_that_is_not_there_is_found_out_before_any_work(sweep, tmp_path):
    other = Sweep(fields=sweep.fields, axes={"model": [*sweep.axes["model"], "nobody"]})
    with pytest.raises(UnknownNameError, match="Unknown model 'nobody'"):
        run_sweep(other, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_a_work_that_is_lost_keeps_no_other_experiment_from_running(sweep, tmp_path, monkeypatch):
    ran = []

    def run(experiment, path, *_):
        ran.append(path.stem)
        if path.stem == sweep.names[0]:
            raise WorkLostError("1 sequence is missing.")

    monkeypatch.setattr(sweep_module, "run_experiment", run)
    with pytest.raises(WorkLostError, match="1 sequence is missing"):
        run_sweep(sweep, tmp_path / "sweep")
    assert ran == list(sweep.names)


def test_a_work_can_be_sent_to_another_process_and_done_there(experiment, tmp_path):
    """What is left, doing it, and writing it down are separate: the records are those of a run."""
    trial = experiment(problems=2, repeats=2)
    whole = run_experiment(trial, tmp_path / "r.jsonl")
    subject = Subject(load(trial.model), load_tokenizer(trial.model))
    (tmp_path / "r.jsonl").write_bytes(b"".join((tmp_path / "r.jsonl").read_bytes().splitlines(keepends=True)[:3]))
    left = works_left(trial, all_cases(trial, subject.tokenizer), read_results(tmp_path / "r.jsonl"))
    assert len(left) == 6
    sent, works = pickle.loads(pickle.dumps((trial, left)))
    outcomes = [record for work in works for record in perform(subject, sent, work)]
    assert [(r.entry, r.case, r.repeat, r.response) for r in outcomes] == [
        (r.entry, r.case, r.repeat, r.response) for r in whole.sequences[2:]
    ]


def test_a_work_that_fails_is_a_record(experiment, broken):
    trial = experiment(policies=[broken], problems=1)
    subject = Subject(load(trial.model), load_tokenizer(trial.model))
    cases = all_cases(trial, subject.tokenizer)
    from freshkv.compare.schedule import plan_work

    *_, last = plan_work(trial, cases, set())
    outcome = perform(subject, trial, last)
    assert isinstance(outcome, FailureRecord)
    assert "no such row" in outcome.message


def test_repeats_take_turns_and_count_once_for_accuracy(experiment, tmp_path):
    results = run_experiment(experiment(problems=1, repeats=3), tmp_path / "r.jsonl")
    order = [(record.policy, record.repeat) for record in results.sequences]
    assert order == [("none", 0), ("dual", 0), ("none", 1), ("dual", 1), ("none", 2), ("dual", 2)]
    assert [summary.sequences for summary in summarize(results)] == [1, 1]
    assert len({record.response for record in results.sequences if record.policy == "dual"}) == 1
