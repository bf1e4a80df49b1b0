"""Options as lm-eval hands them over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval._cli.utils import key_val_to_dict
from lm_eval.utils import simple_parse_args_string

from freshkv.core.errors import FreshkvError, InputError
from freshkv.core.registry import resolve_policy
from freshkv.evaluation.model_args import ModelOptions, spec_from_model_args


@pytest.mark.parametrize(
    ("written", "spec"),
    [
        ("d2cache:current_k=16+sigma=5", "d2cache:current_k=16,sigma=5"),
        ("d2cache:current_k=16,sigma=5", "d2cache:current_k=16,sigma=5"),
        ("d2cache:sigma=1e+1+current_k=16", "d2cache:sigma=1e+1,current_k=16"),
        ('x:text="a+b=c"+n=1', 'x:text="a+b=c",n=1'),
        ("none", "none"),
    ],
)
def test_a_plus_sign_stands_for_a_comma_between_fields(written, spec):
    assert spec_from_model_args(written) == spec


@given(
    current_k=st.integers(1, 99),
    sigma=st.floats(1e-3, 1e6),
    rollout_p=st.floats(0.01, 1.0),
    inflate_w=st.integers(0, 9),
)
def test_a_spec_survives_both_of_the_ways_in_which_lm_eval_divides_options(current_k, sigma, rollout_p, inflate_w):
    spec = f"d2cache:current_k={current_k},sigma={sigma},rollout_p={rollout_p},inflate_w={inflate_w}"
    line = f"pretrained=tiny-llada,policy={spec.replace(',', '+')},decoder=threshold:threshold=0.8"
    for read in (simple_parse_args_string, key_val_to_dict):
        options = ModelOptions.read(read(line))
        assert options.policy == resolve_policy(spec)
        assert options.decoder.spec == "threshold:threshold=0.8"


def test_json_and_quotes_may_hold_commas():
    spec = "d2cache:current_k=16,sigma=5"
    quoted = key_val_to_dict(f"pretrained=tiny-llada,policy='{spec}'")
    for arguments in (quoted, {"pretrained": "tiny-llada", "policy": spec}):
        assert ModelOptions.read(arguments).policy.spec == spec


def test_none_is_a_policy_even_where_lm_eval_takes_it_for_nothing():
    arguments = simple_parse_args_string("pretrained=tiny-llada,policy=none")
    assert arguments["policy"] is None
    assert ModelOptions.read(arguments).policy.spec == "none"


def test_a_number_of_sequences_may_come_as_text():
    assert ModelOptions.read({"pretrained": "x", "batch_size": "4", "max_batch_size": 64}).batch_size == 4


@pytest.mark.parametrize("text", ["auto", "auto:4"])
def test_a_batch_may_be_as_large_as_the_memory_allows(text):
    options = ModelOptions.read({"pretrained": "x", "batch_size": text, "max_batch_size": 8})
    assert (options.batch_size, options.max_batch_size) == ("auto", 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs pretrained="),
        ({"pretrained": "x", "polcy": "dual"}, "no option 'polcy'. Did you mean 'policy'?"),
        ({"pretrained": "x", "sigma": 5}, "write + instead of a comma"),
        ({"pretrained": "x", "batch_size": "all"}, "expected a whole number of at least 1, or auto"),
        ({"pretrained": "x", "batch_size": 0}, "batch_size is 0"),
        ({"pretrained": "x", "max_batch_size": 0}, "max_batch_size is 0"),
        ({"pretrained": "x", "gen_length": 0}, "gen_length is 0"),
        ({"pretrained": "x", "mc_masking": "all"}, "expected count or rate"),
        ({"pretrained": "x", "temperature": -1.0}, "temperature is -1.0"),
        ({"pretrained": "x", "check_greedy": "yes"}, "expected True or False"),
        ({"pretrained": "x", "tensor_parallel": 2}, "tensor_parallel is 2; expected True or False"),
        ({"pretrained": "x", "policy": "dul"}, "Did you mean 'dual'"),
        ({"pretrained": "x", "policy": "d2cache:sigm=1"}, "no field 'sigm'"),
        ({"pretrained": "x", "dtype": "int8"}, "dtype is 'int8'"),
        ({"pretrained": "x", "device": "abacus"}, "device is 'abacus'"),
        ({"pretrained": "x", "seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_loaded(arguments, message):
    with pytest.raises(FreshkvError) as caught:
        ModelOptions.read(arguments)
    assert message in str(caught.value)


def test_options_are_written_as_they_can_be_read():
    options = ModelOptions.read({"pretrained": "x", "policy": "d2cache:current_k=3", "responses": "kept"})
    assert ModelOptions.read(options.to_dict()) == options


def test_errors_of_input_are_value_errors():
    assert issubclass(InputError, ValueError)
