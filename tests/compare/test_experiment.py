"""An experiment is checked when it is made."""

import pytest

from freshkv import FreshkvError
from freshkv.compare import Experiment
from freshkv.core.errors import InputError, SpecError, UnknownNameError
from freshkv.models.tasks import Weave


def specs(parts):
    return [part.spec for part in parts]


def test_the_baseline_comes_first_where_it_is_missing():
    assert specs(Experiment(policies=["dual"]).policies) == ["none", "dual"]
    assert specs(Experiment(policies=["dual", "none"]).policies) == ["dual", "none"]


def test_every_policy_meets_every_decoder_once():
    experiment = Experiment(policies=["dual", "dual", "dllm:kp=50"], decoders=["confidence", "threshold"])
    expected = [(p, d) for d in ("confidence", "threshold") for p in ("none", "dual", "dllm")]
    assert [entry.key for entry in experiment.entries] == expected


def test_single_values_and_objects_are_welcome():
    experiment = Experiment(tasks=Weave(), policies="dual", decoders="threshold", seeds=3)
    assert [task.name for task in experiment.tasks] == ["weave"]
    assert (specs(experiment.policies), specs(experiment.decoders)) == (["none", "dual"], ["threshold"])
    assert experiment.seeds == (3,)


def test_all_tasks_are_the_default():
    assert [task.name for task in Experiment().tasks] == ["sums", "sudoku", "weave"]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"policies": ["prefx"]}, UnknownNameError, "Did you mean 'prefix'"),
        ({"policies": ["dllm:kq=1"]}, SpecError, "no field 'kq'"),
        ({"policies": [3]}, InputError, "policy is 3"),
        ({"decoders": ["greedy"]}, UnknownNameError, "Unknown decoder"),
        ({"decoders": []}, InputError, "decoders is empty"),
        ({"tasks": ["sum"]}, UnknownNameError, "Did you mean 'sums'"),
        ({"tasks": [Weave]}, InputError, "expected a name"),
        ({"tasks": []}, InputError, "tasks is empty"),
        ({"problems": 0}, InputError, "problems is 0"),
        ({"problems": True}, InputError, "problems is True"),
        ({"batch_size": 1.5}, InputError, "batch_size is 1.5"),
        ({"gen_length": -1}, InputError, "gen_length is -1"),
        ({"threads": 0}, InputError, "threads is 0"),
        ({"block_length": 7}, InputError, "does not divide the 64 tokens of a response to 'sums'"),
        ({"seeds": ["a"]}, InputError, "seeds holds 'a'"),
        ({"seeds": [1, 1]}, InputError, "each number once"),
        ({"temperature": -1}, InputError, "temperature is -1"),
        ({"top_p": 2.0}, InputError, "top_p is 2"),
        ({"dtype": "int8"}, InputError, "dtype is 'int8'"),
        ({"device": "gpu0"}, InputError, "device is 'gpu0'"),
    ],
)
def test_bad_values_are_refused_before_any_work(changes, error, words):
    with pytest.raises(error, match=words) as caught:
        Experiment(**changes)
    assert isinstance(caught.value, FreshkvError)
