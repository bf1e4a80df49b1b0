"""Property 8: spec string -> object -> spec string is the identity; what cannot be read says why."""

from __future__ import annotations

from typing import ClassVar, Literal

import pytest
from attrs import field, frozen
from attrs.validators import ge
from hypothesis import given
from hypothesis import strategies as st

import freshkv
from freshkv import CachePolicy, Decoder
from freshkv.core.errors import InputError, SpecError, UnknownNameError
from freshkv.core.registry import decoders, policies, resolve_decoder, resolve_policy
from freshkv.core.spec import Configurable, describe_fields, format_spec, parse_spec
from tests.core.support import DECODERS, POLICIES, any_decoder, any_policy, examples


@frozen
class Every(Configurable):
    """A field of every kind that a spec string can hold."""

    name: ClassVar[str] = "every"

    whole: int = field(default=3, validator=ge(-100))
    number: float = field(default=0.5, converter=float)
    flag: bool = False
    text: str = "plain"
    choice: Literal["left", "right"] = "left"
    perhaps: float | None = None
    words: str | None = None


KNOWN = {"every": Every}


def every() -> st.SearchStrategy[Every]:
    """Any object at all, texts and numbers of any kind."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    number = st.floats(allow_nan=False)
    return st.builds(
        Every,
        whole=st.integers(-100, 10**30),
        number=number,
        flag=st.booleans(),
        text=text | st.sampled_from(("none", "None", "", " ", '"', "a,b", "a=b", "\\", "true", "1")),
        choice=st.sampled_from(("left", "right")),
        perhaps=st.none() | number,
        words=st.none() | text | st.sampled_from(("none", "NONE")),
    )


@examples(200)
@given(value=every())
def test_an_object_written_as_a_spec_and_read_again_is_itself(value: Every) -> None:
    assert parse_spec(value.spec, "thing", KNOWN) == value
    assert parse_spec(value.spec, "thing", KNOWN).spec == value.spec


@examples(100)
@given(policy=any_policy(), decoder=any_decoder())
def test_every_policy_and_decoder_survives_its_spec(policy: CachePolicy, decoder: Decoder) -> None:
    assert resolve_policy(policy.spec) == policy
    assert resolve_decoder(decoder.spec) == decoder


@pytest.mark.parametrize("name", POLICIES)
def test_the_defaults_of_a_policy_are_its_bare_name(name: str) -> None:
    fields = ",".join(f"{key}={value}" for key, value in describe_fields(policies()[name]).items())
    assert policies()[name]().spec == name
    assert resolve_policy(f"{name}:{fields}" if fields else name).spec == name


@pytest.mark.parametrize("name", DECODERS)
def test_the_defaults_of_a_decoder_are_its_bare_name(name: str) -> None:
    fields = ",".join(f"{key}={value}" for key, value in describe_fields(decoders()[name]).items())
    assert decoders()[name]().spec == name
    assert resolve_decoder(f"{name}:{fields}" if fields else name).spec == name


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("d2cache:current_k=16", "d2cache:current_k=16"),
        ("d2cache: current_k = 16 , sigma=3.50", "d2cache:current_k=16,sigma=3.5"),
        ("d2cache:sigma=1e1,current_k=32", "d2cache"),
        ("dllm:rou=0,kp=8", "dllm:kp=8,rou=0"),
        (" none ", "none"),
    ],
)
def test_a_spec_has_one_normal_form(text: str, normal: str) -> None:
    assert resolve_policy(text).spec == normal


def test_a_quoted_text_may_hold_separators() -> None:
    assert parse_spec('every:text="a, b: c=d"', "thing", KNOWN).text == "a, b: c=d"
    assert format_spec(Every(words="none")) == 'every:words="none"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Cannot read the spec ''"),
        (":current_k=1", "expected 'name' or 'name:field=value,...'"),
        ("d2cache:", "expected 'field=value,...'"),
        ("d2cache:current_k", "Cannot read 'current_k'"),
        ("d2cache:current_k=1,,sigma=2", "expected 'field=value,...'"),
        ("d2cache:current_k=1,current_k=2", "gives 'current_k' twice"),
        ("d2cache:curent_k=1", r"no field 'curent_k'.*Did you mean 'current_k'\? Its fields: rollout_p, current_k"),
        ("none:x=1", "Its fields: none"),
        ("d2cache:current_k=many", "current_k=many .*expected a whole number"),
        ("d2cache:current_k=1.5", "expected a whole number"),
        ("d2cache:sigma=wide", "expected a number"),
        ("d2cache:current_k=0", "not a valid d2cache: 'current_k' must be >= 1: 0"),
        ("d2cache:rollout_p=1.5", "'rollout_p' must be <= 1"),
        ("d2cache:sigma=nan", "sigma"),
        ("dllm:kr=0", "'kr' must be >= 1"),
    ],
)
def test_a_policy_spec_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve_policy(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("confidence:score=entrpy", r"expected one of confidence, margin, entropy, random\. Did you mean 'entropy'\?"),
        ("confidence:tokens_per_step=0", "'tokens_per_step' must be >= 1"),
        ("threshold:threshold=2", "'threshold' must be <= 1"),
        ("autoregressive:threshold=maybe", "expected a number"),
        ("confidence:prior_sigma=-1", "'prior_sigma' must be >= 0"),
    ],
)
def test_a_decoder_spec_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve_decoder(text)


@pytest.mark.parametrize("text", ['every:text="\\x"', 'every:text="unclosed', "every:flag=yes", "every:choice=up"])
def test_a_value_that_cannot_be_read_is_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError, match="every"):
        parse_spec(text, "thing", KNOWN)


def test_an_unknown_name_suggests_the_near_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown policy 'prefx'\. Did you mean 'prefix'.* Known: .*d2cache, .*dllm"
    ):
        resolve_policy("prefx")
    with pytest.raises(UnknownNameError, match=r"Unknown decoder 'treshold'\. Did you mean 'threshold'"):
        resolve_decoder("treshold")


@pytest.mark.parametrize("value", [None, 3, policies()["dual"], decoders()["confidence"]()])
def test_what_is_not_a_policy_is_refused(value: object) -> None:
    with pytest.raises(InputError, match=r"expected a name, 'name:field=value,\.\.\.' or a CachePolicy"):
        resolve_policy(value)


def test_the_registries_can_be_asked_more_than_once() -> None:
    assert callable(freshkv.policies), "the package of the same name has taken its place"
    assert callable(freshkv.decoders), "the package of the same name has taken its place"
    assert {"none", "prefix", "dual", "dllm", "d2cache"} <= set(freshkv.policies())
    assert {"confidence", "threshold", "autoregressive"} <= set(freshkv.decoders())
