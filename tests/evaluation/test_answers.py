"""Where an answer ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshkv.evaluation.answers import cut_answer, end_tokens
from tests.compare.checkpoint import build_tokenizer

TOKENIZER = build_tokenizer()
END = TOKENIZER.eos_token_id


def ids(text):
    return TOKENIZER.encode(text)


def test_an_answer_ends_before_its_first_end_token():
    answer = cut_answer([*ids("1 2 3"), END, *ids("4"), END], TOKENIZER, {END}, ())
    assert (answer.text, answer.tokens) == ("1 2 3", 3)


def test_an_answer_without_an_end_is_the_whole_response():
    answer = cut_answer(ids("1 2 3"), TOKENIZER, {END}, ("9",))
    assert (answer.text, answer.tokens) == ("1 2 3", 3)


def test_a_response_that_begins_with_an_end_has_no_answer():
    answer = cut_answer([END, *ids("4")], TOKENIZER, {END}, ())
    assert (answer.text, answer.tokens) == ("", 0)


def test_text_is_cut_at_the_stop_string_that_comes_first():
    answer = cut_answer(ids("1 2 3 4 5"), TOKENIZER, {END}, ("5", "3 4", "4"))
    assert (answer.text, answer.tokens) == ("1 2 ", 3)


def test_a_stop_string_that_is_a_special_token_is_seen():
    response = [*ids("1 2"), TOKENIZER.mask_token_id, *ids("3")]
    answer = cut_answer(response, TOKENIZER, {END}, (TOKENIZER.mask_token,))
    assert (answer.text, answer.tokens) == ("1 2", 2)


@given(
    response=st.lists(st.sampled_from([*ids("1 2 3"), END]), max_size=12),
    until=st.lists(st.sampled_from(["1", "2", "1 2", "3 3"]), max_size=2),
)
def test_no_end_is_left_in_an_answer_and_its_tokens_spell_it(response, until):
    answer = cut_answer(response, TOKENIZER, {END}, until)
    assert not any(stop in answer.text for stop in until)
    assert END not in response[: answer.tokens]
    assert TOKENIZER.decode(response[: answer.tokens], skip_special_tokens=True).startswith(answer.text)
    if answer.tokens > 0:
        shorter = TOKENIZER.decode(response[: answer.tokens - 1], skip_special_tokens=True)
        assert not shorter.startswith(answer.text) or answer.text == shorter == ""


@pytest.mark.parametrize("name", ["<|eot_id|>", "<|im_end|>"])
def test_the_end_of_a_turn_ends_an_answer_too(subject, name):
    tokenizer = build_tokenizer()
    spec = subject.model.network_spec
    assert end_tokens(tokenizer, spec) == {END}
    tokenizer.add_tokens([name], special_tokens=True)
    assert end_tokens(tokenizer, spec) == {END, tokenizer.convert_tokens_to_ids(name)}
