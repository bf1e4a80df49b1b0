"""Answers and what they took."""

import pytest
import torch

from freshkv.compare.measure import Subject
from freshkv.evaluation.generation import Generator, queues
from freshkv.evaluation.metrics import GenerationTotals
from freshkv.evaluation.responses import AnswerRecord
from freshkv.evaluation.session import Question
from tests.core.networks import SmallMemory, cuda_has_no_memory

TEXTS = ("1 2 3", "4 5 6 7 8 9 1", "2")
GREEDY = {"do_sample": False}


def questions(arguments=GREEDY, texts=TEXTS):
    return [Question(text=text, arguments=arguments) for text in texts]


def test_answers_do_not_depend_on_batch_or_order(session):
    alone = {
        record.key: record.text for record in session(batch_size=1, policy="d2cache:current_k=2").answer(questions())
    }
    assert len(alone) == 3
    texts = [record.text for record in session(batch_size=1, policy="d2cache:current_k=2").answer(questions())]
    batched = [record.text for record in session(batch_size=3, policy="d2cache:current_k=2").answer(questions())]
    turned = [
        record.text
        for record in session(batch_size=2, policy="d2cache:current_k=2").answer(questions(texts=TEXTS[::-1]))
    ]
    assert texts == batched == turned[::-1]


def test_without_a_cache_every_row_is_computed_whatever_the_padding(session):
    batched = session(batch_size=3)
    batched.answer(questions())
    totals = batched.totals
    assert totals.rows_share == 1.0
    assert totals.forwards == 3 * 8
    assert totals.rows_total == 8 * sum(len(text.split()) + 8 for text in TEXTS)
    assert totals.prompt_tokens == sum(len(text.split()) for text in TEXTS)


def test_rows_of_a_sequence_do_not_depend_on_its_batch(session):
    for policy in ("dual", "dllm:kp=4,kr=2", "d2cache:current_k=2"):
        alone = session(batch_size=1, policy=policy, block_length=4).answer(questions())
        batched = session(batch_size=3, policy=policy, block_length=4).answer(questions())
        assert [r.rows_computed for r in alone] == pytest.approx([r.rows_computed for r in batched])
        assert all(0 < record.rows_computed < record.rows_total for record in alone)


def test_rows_are_those_that_the_run_counts_where_it_is_decoded_alone(subject, session):
    from freshkv import generate

    for policy, decoder in (("dllm:kp=4,kr=2", "confidence"), ("dual", "wino:wide_in=0.1")):
        of = session(policy=policy, decoder=decoder)
        (found,) = of.answer(questions(texts=TEXTS[:1]))
        ids = torch.tensor([of._generation_request(questions()[0]).prompt])
        run = generate(subject.model, ids, policy=policy, decoder=decoder, gen_length=8)
        assert found.forwards == len(run.trace)
        assert found.rows_computed == pytest.approx(run.stats.rows_computed, abs=len(run.trace))


def test_passes_are_shared_by_the_sequences_that_are_in_them(session):
    alone, batched = session(batch_size=1), session(batch_size=2)
    for of in (alone, batched):
        of.answer([*questions({"until": []}), *questions({"until": []}, texts=("5", "6"))])
    assert alone.totals.passes == alone.totals.forwards == batched.totals.forwards == 5 * 8
    assert batched.totals.passes == pytest.approx(3 * 8)
    assert alone.totals.sequences_per_pass == 1.0
    assert batched.totals.sequences_per_pass == pytest.approx(5 / 3)


def test_responses_of_other_lengths_share_a_batch(session):
    asked = [*questions({"max_gen_toks": 4}), *questions({"max_gen_toks": 8}), *questions({"max_gen_toks": 12})]
    batched = session(gen_length=None, batch_size=3)
    texts = [record.text for record in batched.answer(asked)]
    # 12 + 12 + 12, 8 + 8 + 8 and 4 + 4 + 4 positions, one a step
    assert batched.totals.passes == pytest.approx(24)
    assert texts == [record.text for record in session(gen_length=None).answer(asked)]
    assert [record.response_tokens for record in batched.answer(asked)] == [4, 4, 4, 8, 8, 8, 12, 12, 12]


def test_slots_may_be_planned_from_the_memory(session):
    planned = session(batch_size="auto")
    asked = questions()
    records = planned.answer(asked)
    assert {record.batch for record in records} == {3}
    assert [record.text for record in records] == [record.text for record in session().answer(asked)]
    assert {record.batch for record in session(batch_size="auto", max_batch_size=2).answer(asked)} == {2}


def test_a_lack_of_memory_halves_the_slots_and_says_so(session, subject, capsys):
    rich = Subject(SmallMemory(subject.model, 24, cuda_has_no_memory), subject.tokenizer)
    records = session(of=rich, batch_size=4).answer(questions())
    assert "2.50 GiB, with 3 sequences decoded together. Going on with 1" in capsys.readouterr().err
    assert [record.text for record in records] == [record.text for record in session().answer(questions())]


def record(key, **changes):
    defaults = {
        "text": "", "prompt_tokens": 5, "answer_tokens": 10, "response_tokens": 20, "forwards": 20,
        "rows_computed": 100.0, "rows_total": 500, "seconds": 2.0, "batch": 1, "passes": 20.0,
    }  # fmt: skip
    return AnswerRecord(key=key, **{**defaults, **changes})


def test_speed_is_a_ratio_of_totals_not_a_mean_of_ratios():
    totals = GenerationTotals.of(
        [record("a", answer_tokens=100, seconds=1.0), record("b", answer_tokens=10, seconds=9.0)]
    )
    assert totals.tokens_per_second == pytest.approx(11.0)
    assert totals.tokens_per_forward == pytest.approx(110 / 40)
    assert totals.rows_share == pytest.approx(0.2)
    assert totals.response_tokens_per_second == pytest.approx(4.0)


def test_totals_of_parts_add_up_to_those_of_the_whole():
    records = [record(str(number), answer_tokens=number, seconds=number / 2) for number in range(1, 6)]
    assert GenerationTotals.of(records[:2]) + GenerationTotals.of(records[2:]) == GenerationTotals.of(records)


def test_an_answer_that_is_asked_for_twice_counts_once():
    assert GenerationTotals.of([record("a"), record("a")]).answers == 1


def test_nothing_generated_has_no_speed():
    totals = GenerationTotals()
    assert (totals.tokens_per_second, totals.tokens_per_forward, totals.rows_share) == (None, None, None)


def test_tokens_behind_the_stop_do_not_count(session):
    (whole,) = session().answer(questions(texts=TEXTS[:1]))
    words = whole.text.split()
    stop = words[3]
    (cut,) = session().answer(questions({"until": [stop]}, texts=TEXTS[:1]))
    assert cut.answer_tokens == words.index(stop)
    assert (cut.response_tokens, whole.answer_tokens) == (8, len(words))


def test_a_repeated_question_is_drawn_anew_but_always_alike(session):
    arguments = {"do_sample": True, "temperature": 1.0}
    asked = [Question(text="1 2", arguments=arguments, repeat=repeat) for repeat in range(6)]
    first = [record.text for record in session().answer(asked)]
    assert len(set(first)) > 1
    assert first == [record.text for record in session(batch_size=4).answer(asked)]
    assert first != [record.text for record in session(seed=1).answer(asked)]


def test_what_is_drawn_alike_is_decoded_together_the_longest_first(session):
    drawn = {"do_sample": True, "temperature": 0.5}
    asked = [*questions({"max_gen_toks": 4}), *questions({"max_gen_toks": 8}), *questions(drawn)]
    requests = [session(gen_length=None)._generation_request(question) for question in asked]
    (greedy, first), (sampled, second) = queues(requests)
    assert (greedy.temperature, sampled.temperature) == (0.0, 0.5)
    assert [(len(each.prompt), each.settings.gen_length) for each in first] == [
        (7, 8), (7, 4), (3, 8), (1, 8), (3, 4), (1, 4),
    ]  # fmt: skip
    assert [each.settings.gen_length for each in second] == [256] * 3


def test_a_generator_stops_early_where_it_is_told_to(subject, session):
    asked = [session()._generation_request(question) for question in questions()]
    found = {}
    for stop in (False, True):
        of = Generator(
            subject=subject,
            policy=session().options.policy,
            decoder=session().options.decoder,
            stop_at_eos=stop,
            batch_size=1,
        )
        records = []
        of.answer(asked, records.extend, pytest.fail)
        found[stop] = {record.key: record for record in records}
    assert {key: record.text for key, record in found[True].items()} == {
        key: record.text for key, record in found[False].items()
    }
    assert all(record.forwards <= found[False][key].forwards for key, record in found[True].items())
