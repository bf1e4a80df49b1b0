"""What the task says, and what overrides it."""

import pytest

from freshkv.core.errors import InputError
from freshkv.evaluation.model_args import ModelOptions
from freshkv.evaluation.settings import settings_of


@pytest.fixture
def resolve():
    """A function from a task's arguments and options of the model to settings and messages."""

    def run(task, **options):
        messages = []
        return settings_of(task, ModelOptions(pretrained="x", **options), messages.append), messages

    return run


def test_a_task_decides_length_and_stops(resolve):
    settings, messages = resolve({"max_gen_toks": 64, "until": ["\n", ""], "do_sample": False})
    assert settings.decoding.gen_length == 64
    assert settings.until == ("\n",)
    assert messages == []


@pytest.mark.parametrize("name", ["max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens"])
def test_the_length_has_several_names(resolve, name):
    assert resolve({name: 32})[0].decoding.gen_length == 32


def test_without_any_length_it_is_256(resolve):
    assert resolve({})[0].decoding.gen_length == 256


def test_an_option_overrides_the_length_and_says_so(resolve):
    settings, messages = resolve({"max_gen_toks": 64}, gen_length=128)
    assert settings.decoding.gen_length == 128
    assert messages == ["The task asks for 64 response tokens; gen_length=128 overrides that."]


@pytest.mark.parametrize(
    ("task", "temperature"),
    [
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.3}, 0.3),
        ({"temperature": 0.3}, 0.3),
        ({"temperature": 0}, 0.0),
        ({}, 0.0),
    ],
)
def test_temperature_follows_do_sample(resolve, task, temperature):
    settings, messages = resolve(task)
    assert settings.decoding.temperature == temperature
    assert messages == []


def test_filters_count_where_tokens_are_drawn(resolve):
    drawn, _ = resolve({"do_sample": True, "top_p": 0.9, "top_k": 5})
    assert (drawn.decoding.top_p, drawn.decoding.top_k) == (0.9, 5)
    greedy, _ = resolve({"do_sample": False, "top_p": 0.9, "top_k": 5})
    assert (greedy.decoding.top_p, greedy.decoding.top_k) == (None, None)


def test_an_option_overrides_sampling_and_says_so(resolve):
    settings, messages = resolve({"do_sample": False}, temperature=0.5, top_p=0.9)
    assert (settings.decoding.temperature, settings.decoding.top_p) == (0.5, 0.9)
    assert messages == ["The task asks for temperature 0; temperature=0.5 overrides that."]


def test_one_stop_string_may_come_without_a_list(resolve):
    assert resolve({"until": "stop"})[0].until == ("stop",)


def test_stop_strings_can_be_left_out(resolve):
    settings, messages = resolve({"until": ["\n"]}, use_until=False)
    assert settings.until == ()
    assert "not cut at the task's stop strings" in messages[0]


def test_arguments_that_mean_nothing_here_are_named(resolve):
    assert "num_beams" in resolve({"num_beams": 4})[1][0]


def test_blocks_that_do_not_fit_the_response_are_refused(resolve):
    with pytest.raises(InputError, match="block_length 7 does not divide the 64 tokens"):
        resolve({"max_gen_toks": 64}, block_length=7)
