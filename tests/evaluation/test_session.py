"""Prompts that do not fit, and results that survive."""

import json

import pytest

from freshkv.core.errors import InputError, ResultsError
from freshkv.evaluation.responses import ResponseStore
from freshkv.evaluation.session import Question

LONG = " ".join("123456789" * 3)


def questions(count=4, text="1 2"):
    return [Question(text=f"{text} {number}", arguments={}) for number in range(count)]


def test_a_prompt_that_is_too_long_loses_its_beginning_and_says_so(session):
    of = session(max_length=20)
    with pytest.warns(UserWarning, match=r"longer than 12 tokens are cut at the left .* loses 15 of 27"):
        (cut,) = of.answer([Question(text=LONG, arguments={})])
    assert cut.prompt_tokens == 12
    (same,) = session().answer([Question(text=" ".join(LONG.split()[-12:]), arguments={})])
    assert cut.text == same.text


def test_it_says_so_once(session, recwarn):
    of = session(max_length=20)
    of.answer([Question(text=f"{LONG} {number}", arguments={}) for number in range(3)])
    assert len(recwarn) == 1


def test_a_response_that_leaves_no_room_is_refused(session):
    with pytest.raises(InputError, match="leaves 0 tokens for the prompt"):
        session(max_length=8).answer(questions(1))


def test_an_empty_prompt_is_refused(session):
    with pytest.raises(InputError, match="empty"):
        session().answer([Question(text="", arguments={})])


def test_a_target_that_is_too_long_is_refused(session):
    with pytest.raises(InputError, match="target of the task has 9 tokens"):
        session(max_length=8).score([([1], [2] * 9)])


class Killed(BaseException):
    """What no handler of errors catches."""


def test_a_kill_loses_at_most_a_batch_and_nothing_runs_twice(session, tmp_path, monkeypatch):
    whole = [record.text for record in session().answer(questions(6))]
    written = []
    append = ResponseStore.append

    def kill_in_the_third_batch(store, records):
        if len(written) == 2:
            raise Killed
        written.append(len(records))
        append(store, records)

    monkeypatch.setattr(ResponseStore, "append", kill_in_the_third_batch)
    with pytest.raises(Killed):
        session(responses=tmp_path, batch_size=2).answer(questions(6))
    monkeypatch.setattr(ResponseStore, "append", append)
    assert len(ResponseStore(tmp_path).read()) == 4

    asked = []
    monkeypatch.setattr(
        ResponseStore, "append", lambda store, records: (asked.append(len(records)), append(store, records))
    )
    again = session(responses=tmp_path, batch_size=2)
    assert [record.text for record in again.answer(questions(6))] == whole
    assert asked == [2]
    assert again.totals.answers == 6


def test_log_likelihoods_are_kept_too(session, tmp_path, monkeypatch):
    pairs = [([1, 2], [3, 4]), ([5], [6])]
    first = session(responses=tmp_path, mc_samples=4).score(pairs)
    monkeypatch.setattr(ResponseStore, "append", lambda store, records: pytest.fail("runs again"))
    assert session(responses=tmp_path, mc_samples=4).score(pairs) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": "dual"},
        {"decoder": "threshold"},
        {"seed": 1},
        {"gen_length": 4},
        {"temperature": 0.5},
        {"batch_size": 2},
    ],
)
def test_other_options_are_other_results(session, tmp_path, changes):
    session(responses=tmp_path).answer(questions(2))
    session(responses=tmp_path, **changes).answer(questions(2))
    assert len(ResponseStore(tmp_path).read()) == 4


def test_a_line_that_was_cut_off_is_left_out(session, tmp_path):
    session(responses=tmp_path).answer(questions(2))
    (path,) = tmp_path.glob("responses-*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"kind": "answer", "te')
    assert len(ResponseStore(tmp_path).read()) == 2


def test_a_damaged_line_is_an_error_that_names_it(tmp_path):
    (tmp_path / "responses-x.jsonl").write_text(json.dumps({"kind": "riddle"}) + "\n")
    with pytest.raises(ResultsError, match=r"responses-x\.jsonl, line 1"):
        ResponseStore(tmp_path).read()


def test_processes_write_files_of_their_own(tmp_path, session):
    for part in (questions(2), questions(4)[2:]):
        session(responses=tmp_path).answer(part)
    assert len(list(tmp_path.glob("responses-*.jsonl"))) == 2
    assert len(ResponseStore(tmp_path).read()) == 4
