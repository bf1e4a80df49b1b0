"""Numbers by hand."""

from pathlib import Path

import pytest

from freshkv.compare import FailureRecord, Header, Results, SequenceRecord, describe_findings, summarize


def record(policy, problem, **changes):
    fields = {
        "task": "sums", "seed": 0, "problem": problem, "policy": policy, "decoder": "confidence", "correct": True,
        "text": "1 2", "response": (1, 2), "canvas": 10, "forwards": 2, "rows_computed": 20.0, "tokens_produced": 2,
        "seconds": 1.0, "peak_bytes": 100, "cache_bytes": 10, "batch": 1,
    }  # fmt: skip
    return SequenceRecord(**{**fields, **changes})


def make_results(*sequences, failures=(), policies=("none", "dual"), decoders=("confidence",), tasks=("sums",)):
    experiment = {"tasks": list(tasks), "policies": list(policies), "decoders": list(decoders)}
    header = Header(created="", model="tiny", experiment=experiment, environment={})
    return Results(path=Path("r.jsonl"), header=header, sequences=tuple(sequences), failures=tuple(failures))


def test_summary_equals_the_numbers_by_hand():
    results = make_results(
        record("none", 0, seconds=4.0, tokens_produced=8),
        record("none", 1, seconds=2.0, tokens_produced=2),
        record("none", 2, seconds=3.0, tokens_produced=3),
        record("dual", 0, seconds=1.0, tokens_produced=8, rows_computed=6.0, forwards=1, peak_bytes=300),
        record(
            "dual", 1, seconds=1.0, tokens_produced=2, rows_computed=4.0, forwards=2, response=(1, 3), correct=False
        ),
        record("dual", 2, seconds=2.0, tokens_produced=3, rows_computed=10.0, forwards=2, canvas=20, cache_bytes=30),
    )
    none, dual = summarize(results)
    assert (none.accuracy, none.agreement, none.speedup, none.rows_share) == (1.0, 1.0, 1.0, 1.0)
    assert none.tokens_per_second == pytest.approx(13 / 9)
    assert dual.sequences == 3
    assert dual.accuracy == pytest.approx(2 / 3)
    assert dual.accuracy_interval == pytest.approx((0.20766, 0.93851), abs=1e-5)  # Wilson, 2 of 3
    assert dual.agreement == pytest.approx(2 / 3)
    assert dual.tokens_per_second == pytest.approx(13 / 4)
    assert dual.speedup == 2.0  # of 4, 2 and 1.5
    assert dual.forwards == pytest.approx(5 / 3)
    assert dual.rows_share == pytest.approx(20 / (10 + 20 + 40))
    assert (dual.peak_bytes, dual.cache_bytes) == (300, 30)


def test_pairs_are_of_the_same_decoder_task_seed_and_problem():
    results = make_results(
        record("none", 0, seconds=6.0),
        record("none", 0, seconds=9.0, decoder="threshold", response=(7, 7)),
        record("dual", 0, seconds=3.0, decoder="threshold"),
        record("dual", 1, seconds=1.0, decoder="threshold"),
        record("none", 0, seed=1, seconds=1.0, decoder="threshold"),
        decoders=("confidence", "threshold"),
    )
    summaries = {(s.policy, s.decoder): s for s in summarize(results)}
    pair = summaries["dual", "threshold"]
    assert (pair.sequences, pair.speedup, pair.agreement) == (2, 3.0, 0.0)
    assert summaries["dual", "confidence"].accuracy is None


def test_without_a_baseline_there_is_nothing_to_compare_with():
    _, dual = summarize(make_results(record("dual", 0)))
    assert (dual.accuracy, dual.agreement, dual.speedup) == (1.0, None, None)


def test_a_clear_loss_and_a_slight_one_are_told_apart():
    sequences = [record("none", i) for i in range(20)]
    sequences += [record("dual", i, correct=False) for i in range(20)]
    sequences += [record("prefix", i, correct=i > 0, seconds=0.5) for i in range(20)]
    text = " ".join(describe_findings(summarize(make_results(*sequences, policies=("none", "dual", "prefix")))))
    assert "clearly fewer problems than without a cache: dual on sums (0.00 against 1.00)" in text
    assert "cannot tell that from chance: prefix on sums (0.95 against 1.00)" in text
    assert "Fastest is prefix at 2.00x the uncached run, computing 100% of the rows." in text


def test_equal_accuracy_is_called_that_and_other_tokens_are_mentioned():
    sequences = [record(policy, i) for i in range(4) for policy in ("none", "prefix")]
    sequences += [record("dual", i, response=(i, 2), seconds=2.0) for i in range(4)]
    text = " ".join(describe_findings(summarize(make_results(*sequences, policies=("none", "dual", "prefix")))))
    assert "No policy solves fewer problems than the uncached run on any task; with 4 of each" in text
    assert "other tokens than the uncached run in some answers: dual on sums (75%)" in text
    assert "Slower than no cache: dual (0.50x). Choosing rows can cost more" in text


def test_more_forwards_are_named_as_the_reason():
    sequences = [record("none", 0), record("dual", 0, seconds=2.0, forwards=4)]
    text = " ".join(describe_findings(summarize(make_results(*sequences))))
    assert text.endswith("Slower than no cache: dual (0.50x). More forward passes than without a cache: dual.")


def test_failures_are_told():
    failure = FailureRecord(
        task="sums", seed=0, problem=3, policy="dual", decoder="confidence", error="PolicyError", message="bad rows"
    )
    results = make_results(record("none", 0), failures=[failure])
    assert summarize(results)[1].failure == failure
    assert describe_findings(summarize(results)) == [
        "dual with confidence failed on problem 3 of sums (PolicyError): bad rows"
    ]
