"""Prompts that do not fit, and results that survive."""

import json

import pytest

from freshkv.core.errors import InputError, ResultsError
from freshkv.evaluation.model_args import ModelOptions
from freshkv.evaluation.processes import Processes
from freshkv.evaluation.responses import ResponseStore
from freshkv.evaluation.session import EvaluationSession, Question

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


def test_a_kill_loses_what_is_being_decoded_and_nothing_runs_twice(session, tmp_path, monkeypatch):
    whole = [record.text for record in session().answer(questions(6))]
    written = []
    append = ResponseStore.append

    def kill_at_the_fourth_answer(store, records):
        if len(written) == 3:
            raise Killed
        written.append(len(records))
        append(store, records)

    monkeypatch.setattr(ResponseStore, "append", kill_at_the_fourth_answer)
    with pytest.raises(Killed):
        session(responses=tmp_path, batch_size=2).answer(questions(6))
    monkeypatch.setattr(ResponseStore, "append", append)
    assert written == [1, 1, 1], "every answer is kept as it is finished"
    assert len(ResponseStore(tmp_path).read()) == 3

    asked = []
    monkeypatch.setattr(
        ResponseStore, "append", lambda store, records: (asked.append(len(records)), append(store, records))
    )
    again = session(responses=tmp_path, batch_size=2)
    assert [record.text for record in again.answer(questions(6))] == whole
    assert asked == [1, 1, 1]
    assert again.totals.answers == 6


def test_answers_that_were_written_before_passes_were_counted_can_be_read(session, tmp_path):
    session(responses=tmp_path, batch_size=2).answer(questions(2))
    (path,) = tmp_path.glob("responses-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "passes"}) + "\n" for line in lines))
    again = session(responses=tmp_path, batch_size=2)
    again.answer(questions(2))
    assert again.totals.passes == 8


def test_answers_of_planned_batches_are_found_again_whatever_was_planned(session, tmp_path, monkeypatch):
    first = session(responses=tmp_path, batch_size="auto").answer(questions(3))
    monkeypatch.setattr(ResponseStore, "append", lambda store, records: pytest.fail("runs again"))
    assert session(responses=tmp_path, batch_size="auto", max_batch_size=1).answer(questions(3)) == first


def test_processes_that_compute_on_the_cpu_share_its_memory(subject, checkpoint):
    options = ModelOptions(pretrained=checkpoint, batch_size="auto")
    shares = [
        EvaluationSession(subject, options, Processes(rank=0, size=size, device=None), checkpoint)._batching
        for size in (1, 4)
    ]
    assert shares[0] == {"batch_size": None, "max_batch_size": 64, "memory_share": 0.9}
    assert shares[1]["memory_share"] == 0.9 / 4


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
