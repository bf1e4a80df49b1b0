"""A spec string with grids and ranges stands for the product of its values, in the order in which they are written."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from freshkv.core.errors import SpecError
from freshkv.core.grid import MOST, expand_value
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.spec import expand_spec, parse_spec
from tests.core.support import examples
from tests.core.test_spec import KNOWN, Every, every


@examples(200)
@given(value=every())
def test_a_plain_spec_stands_for_itself(value: Every) -> None:
    assert expand_spec(value.spec) == (value.spec,)


@examples(100)
@given(objects=st.lists(every(), min_size=2, max_size=4))
def test_alternatives_are_written_as_single_values_are(objects: list[Every]) -> None:
    values = [f'"{item}"' if item in {"", "none"} else item for item in ("none", "", "a", "1")]
    texts = [spec.partition("text=")[2] or "plain" for spec in (Every(text=item.text).spec for item in objects)]
    expanded = expand_spec(f"every:words={'|'.join(values)},text={' | '.join(texts)}")
    read = [parse_spec(spec, "thing", KNOWN) for spec in expanded]
    assert [(one.words, one.text) for one in read] == list(
        product(["none", "", "a", "1"], [item.text for item in objects])
    )


numbers = st.decimals(-1000, 1000, places=3)


@examples(200)
@given(start=numbers, stop=numbers, step=numbers)
def test_a_range_adds_its_step_until_the_end(start, stop, step) -> None:
    assume(step != 0 and (stop - start) * step >= 0 and (stop - start) / step < MOST - 1)
    found = [Fraction(text) for text in expand_value(f"{start}..{stop}..{step}")]
    assert found == [Fraction(start) + index * Fraction(step) for index in range(len(found))]
    past = (found[-1] + Fraction(step) - Fraction(stop)) * (1 if step > 0 else -1)
    assert past > 0
    assert (found[-1] - Fraction(stop)) * (1 if step > 0 else -1) <= 0


@examples(200)
@given(
    start=st.integers(1, 50),
    negative=st.booleans(),
    count=st.integers(0, 12),
    factor=st.sampled_from(("2", "3", "1.5", "1.1", "0.5", "10", "0.1")),
    excess=st.sampled_from((0, 1)),
)
def test_a_range_multiplies_by_its_factor_until_the_end(start, negative, count, factor, excess) -> None:
    first = Fraction(-start if negative else start)
    truth = [first * Fraction(factor) ** index for index in range(count + 1)]
    # exactly the last value, or a little beyond it
    end = truth[-1] * (1 + excess * (Fraction(factor) - 1) / 16)
    assume(end.denominator in {2**a * 5**b for a in range(60) for b in range(60)})
    text = f"{_decimal(first)}..{_decimal(end)}..*{factor}"
    assert [Fraction(value) for value in expand_value(text)] == truth


def _decimal(value: Fraction) -> str:
    digits = 60
    whole, rest = divmod(abs(value) * 10**digits, 1)
    assume(rest == 0)
    text = str(int(whole)).rjust(digits + 1, "0")
    return f"{'-' * (value < 0)}{text[:-digits]}.{text[-digits:]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d2cache:current_k=8|16|32", ["d2cache:current_k=8", "d2cache:current_k=16", "d2cache"]),
        ("d2cache:current_k=8..32..8", [f"d2cache:current_k={k}" for k in (8, 16, 24)] + ["d2cache"]),
        ("d2cache:current_k=8..30..8", [f"d2cache:current_k={k}" for k in (8, 16, 24)]),
        ("d2cache:current_k=4..16..*2", [f"d2cache:current_k={k}" for k in (4, 8, 16)]),
        ("d2cache:rollout_p=0.15..0.25..0.05", [f"d2cache:rollout_p={p}" for p in (0.15, 0.2, 0.25)]),
        ("d2cache:current_k=16..8..-8", ["d2cache:current_k=16", "d2cache:current_k=8"]),
        ("d2cache:current_k=1|8..16..8", [f"d2cache:current_k={k}" for k in (1, 8, 16)]),
        ("d2cache: current_k = 8 | 16 , sigma = 5", ["d2cache:current_k=8,sigma=5", "d2cache:current_k=16,sigma=5"]),
        ("dllm:kp=10|20,kr=1|4", [f"dllm:kp={kp},kr={kr}" for kp in (10, 20) for kr in (1, 4)]),
        ("dllm:kr=1|4,kp=10|20", [f"dllm:kp={kp},kr={kr}" for kr in (1, 4) for kp in (10, 20)]),
    ],
)  # fmt: skip
def test_a_grid_of_a_policy(text: str, expected: list[str]) -> None:
    assert [resolve_policy(spec).spec for spec in expand_spec(text)] == expected


def test_a_grid_of_a_decoder_may_hold_words() -> None:
    texts = expand_spec("autoregressive:threshold=none|0.9,score=confidence|margin")
    choices = [(resolve_decoder(text).threshold, resolve_decoder(text).score) for text in texts]
    assert choices == [(None, "confidence"), (None, "margin"), (0.9, "confidence"), (0.9, "margin")]


def test_a_text_that_looks_like_a_range_survives_its_spec() -> None:
    value = Every(text="1..5..2")
    assert value.spec == 'every:text="1..5..2"'
    assert expand_spec(value.spec) == (value.spec,)
    assert parse_spec(value.spec, "thing", KNOWN) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d2cache:current_k=8||16", "current_k=8||16 in .* a value between '|' is empty"),
        ("d2cache:current_k=8|", "is empty"),
        ("d2cache:current_k=8..32", r"current_k=8\.\.32 in .*cannot read the range '8\.\.32'; write START"),
        ("d2cache:current_k=8...32", "cannot read the range"),
        ("d2cache:current_k=8..many..2", "cannot read the range"),
        ("d2cache:current_k=8..32..0", "the step of the range .* is 0"),
        ("d2cache:current_k=8..32..-8", "never reaches its end; its step must be positive"),
        ("d2cache:current_k=32..8..8", "never reaches its end; its step must be negative"),
        ("d2cache:current_k=8..64..*1", "the factor .* is 1; expected a positive number other than 1"),
        ("d2cache:current_k=8..64..*-2", "the factor .* is -2"),
        ("d2cache:current_k=8..64..*0.5", "its factor must be above 1"),
        ("d2cache:current_k=64..8..*2", "its factor must be below 1"),
        ("d2cache:current_k=0..64..*2", "must both be positive"),
        ("d2cache:current_k=1..1e999..1", "1e999 in the range .* is too large"),
        ("d2cache:current_k=1..5000..1", "has 5000 values; at most 1000"),
        ("d2cache:sigma=1..1e300..1", r"has about 1\.0e\+300 values"),
        ("d2cache:sigma=1..2..*1.000001", "has 69[0-9]{4} values; at most 1000"),
        ("dllm:kp=1..40..1,kr=1..40..1", "stands for 1600 specs; at most 1000"),
        ("d2cache:current_k", "expected 'field=value,...'"),
        ('every:text="a"b|c', "expected 'field=value,...'"),
    ],
)
def test_a_grid_that_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        expand_spec(text)


@pytest.mark.parametrize("text", ["d2cache:current_k=8|16", "d2cache:current_k=8..32..8", "d2cache:current_k=8..32"])
def test_where_one_object_is_expected_a_grid_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"one value is expected here; freshkv compare and Experiment take grids"):
        resolve_policy(text)


def test_reading_takes_no_longer_than_the_text_is_long() -> None:
    with pytest.raises(SpecError, match="Cannot read"):
        expand_spec("d2cache:current_k=" + " | ".join(["a  "] * 2000) + '"')
