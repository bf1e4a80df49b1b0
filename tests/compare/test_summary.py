"""Numbers by hand."""

from pathlib import Path

import pytest
from attrs import evolve

from freshkv.compare import (
    Entrant,
    FailureRecord,
    Header,
    Lineup,
    Results,
    SequenceRecord,
    Setting,
    describe_findings,
    summarize,
)


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


def with_lineup(results, *settings):
    lineup = Lineup(seed=9, problems=1, settings=settings)
    return evolve(results, header=evolve(results.header, lineup=lineup))


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


def findings(*sequences, **options):
    return " ".join(describe_findings(summarize(make_results(*sequences, **options))))


def test_the_paired_difference_is_that_of_the_same_problems():
    sequences = [record("none", i, correct=i < 12) for i in range(20)]
    sequences += [record("dual", i, correct=4 <= i < 13) for i in range(16)]  # stopped early
    _, dual = summarize(make_results(*sequences))
    assert (dual.paired.pairs, dual.paired.both, dual.paired.gained, dual.paired.lost) == (16, 8, 1, 4)
    assert dual.paired.difference == pytest.approx(-3 / 16)
    assert dual.paired.p_value == pytest.approx(2 * (1 + 5) / 2**5)
    assert dual.paired.shares == (9 / 16, 12 / 16)


def test_p_values_are_corrected_for_the_policies_of_a_setting_and_no_other():
    lost = {"dual": 8, "prefix": 0, "dllm": 6}
    sequences = [record("none", i, task=task) for i in range(20) for task in ("sums", "weave")]
    sequences += [
        record(policy, i, task=task, correct=i >= count)
        for policy, count in lost.items()
        for i in range(20)
        for task in ("sums", "weave")
    ]
    summaries = summarize(make_results(*sequences, policies=("none", *lost), tasks=("sums", "weave")))
    for task in ("sums", "weave"):
        p = {s.policy: s.corrected_p for s in summaries if s.task == task}
        assert p == {"none": None, "dual": 3 * 2 / 2**8, "prefix": 1.0, "dllm": 2 * 2 / 2**6}
    assert {s.policy for s in summaries if s.is_significant} == {"dual"}


def test_a_loss_beyond_chance_and_a_slight_one_are_told_apart():
    sequences = [record("none", i) for i in range(20)]
    sequences += [record("dual", i, correct=False) for i in range(20)]
    sequences += [record("prefix", i, correct=i > 0, seconds=0.5) for i in range(20)]
    text = findings(*sequences, policies=("none", "dual", "prefix"))
    assert "Solves fewer problems than without a cache, and not by chance: dual on sums (0.00 against 1.00;" in text
    assert "-100 points, 95 % interval -100 to -68; p<0.001)." in text
    assert "cannot tell that from chance (p at least 1.000): prefix on sums (0.95 against 1.00)." in text
    assert "20 problems of each task exclude one of more than 24 points" in text
    assert (
        "Faster than the uncached run, each interval above 1: prefix 2.00x (2.00x to 2.00x; 100% of the rows)" in text
    )


def test_a_gain_beyond_chance_is_told():
    sequences = [record("none", i, correct=False) for i in range(9)]
    sequences += [record("dual", i, correct=i > 0) for i in range(9)]
    text = findings(*sequences)
    assert "Solves more problems than without a cache, and not by chance: dual on sums (0.89 against 0.00; +89" in text


def test_equal_accuracy_is_no_proof_of_no_loss_and_other_tokens_are_mentioned():
    sequences = [record(policy, i) for i in range(6) for policy in ("none", "prefix")]
    sequences += [record("dual", i, response=(i, 2), seconds=2.0) for i in range(6)]
    text = findings(*sequences, policies=("none", "dual", "prefix"))
    assert "No policy solves fewer problems than the uncached run on any task. With 6 problems of each task" in text
    assert "that excludes a loss of more than 39 points (95 % intervals), and no smaller one." in text
    assert "other tokens than the uncached run in some answers: dual on sums (83%)" in text
    assert "Slower than the uncached run, each interval below 1: dual 0.50x (0.50x to 0.50x). Choosing rows" in text
    assert "Neither faster nor slower on every task beyond doubt: prefix 1.00x" in text


def test_few_problems_have_no_interval_of_speed():
    text = findings(*[record(p, i, seconds=s) for i in range(5) for p, s in (("none", 2.0), ("dual", 1.0))])
    assert text.endswith("Too few problems for an interval of speed, which takes 6: dual 2.00x.")


def test_more_forwards_are_named_as_the_reason():
    sequences = [record("none", i) for i in range(6)] + [record("dual", i, seconds=2.0, forwards=4) for i in range(6)]
    assert findings(*sequences).endswith("dual 0.50x (0.50x to 0.50x). More forward passes than without a cache: dual.")


def test_several_tasks_are_given_as_a_range_and_doubt_on_one_is_doubt():
    speeds = {"sums": 0.5, "weave": 0.25}
    sequences = [record("none", i, task=task) for i in range(6) for task in speeds]
    sequences += [record("dual", i, task=task, seconds=speeds[task]) for i in range(6) for task in speeds]
    sequences += [record("prefix", i, task=task, seconds=2 * speeds[task]) for i in range(6) for task in speeds]
    text = findings(*sequences, tasks=("sums", "weave"), policies=("none", "dual", "prefix"))
    assert "each interval above 1: dual 2.83x (2.00x to 4.00x by task; 100% of the rows)." in text
    assert "Neither faster nor slower on every task beyond doubt: prefix 1.41x (1.00x to 2.00x by task)." in text


def test_repeats_count_once_for_accuracy_and_their_median_for_speed():
    sequences = [record("none", i, seconds=4.0, repeat=r) for i in range(6) for r in range(3)]
    sequences += [
        record("dual", i, seconds=(1.0, 2.0, 9.0)[r], repeat=r, correct=i < 3) for i in range(6) for r in range(3)
    ]
    _, dual = summarize(make_results(*sequences))
    assert (dual.sequences, dual.accuracy, dual.paired.pairs, dual.rows_share) == (6, 0.5, 6, 1.0)
    assert (dual.speedup, dual.speedup_interval, dual.speed.batches) == (2.0, (2.0, 2.0), 6)


def test_a_batch_is_one_observation_of_speed():
    sequences = [record(p, i, seconds=s, batch=4) for i in range(8) for p, s in (("none", 2.0), ("dual", 1.0))]
    results = make_results(*sequences)
    results.header.experiment["batch_size"] = 4
    _, dual = summarize(results)
    assert (dual.speedup, dual.speed.batches, dual.speedup_interval) == (2.0, 2, None)


def test_tokens_that_agree_and_the_first_that_does_not():
    sequences = [record("none", i, response=(1, 2, 3, 4)) for i in range(2)]
    sequences += [record("dual", 0, response=(1, 9, 3, 4)), record("dual", 1, response=(1, 2, 3, 4))]
    none, dual = summarize(make_results(*sequences))
    assert (dual.token_agreement, dual.first_divergence, dual.agreement) == (7 / 8, 5 / 8, 0.5)
    assert (none.token_agreement, none.first_divergence, none.paired, none.speedup_interval) == (1, 1, None, None)


def test_one_problem_gives_no_warning_and_no_nan():
    for correct in (True, False):
        summaries = summarize(make_results(record("none", 0), record("dual", 0, correct=correct)))
        assert "nan" not in repr(summaries).lower()
        assert describe_findings(summaries)


def test_what_an_uncached_pass_runs_beside_has_no_speed():
    _, oracle = summarize(make_results(record("none", 0), record("oracle", 0), policies=("none", "oracle")))
    assert (oracle.speedup, oracle.accuracy) == (None, 1.0)
    assert "oracle" not in findings(record("none", 0), record("oracle", 0), policies=("none", "oracle"))


def test_budgets_that_could_not_be_matched_are_told():
    entrants = (
        Entrant(policy="none", given="none"),
        Entrant(policy="dual", given="dual", share=0.25, is_matched=True),
        Entrant(policy="prefix", given="prefix", share=0.5, is_matched=False),
    )
    results = make_results(*[record(e.policy, 0, rows_computed=10.0) for e in entrants])
    setting = Setting(task="sums", decoder="confidence", entrants=entrants, target=0.25)
    text = " ".join(describe_findings(summarize(with_lineup(results, setting))))
    assert "stands there with its own share of the rows: prefix on sums (50%)." in text
    setting = evolve(setting, entrants=entrants[:2])
    text = " ".join(describe_findings(summarize(with_lineup(results, setting))))
    assert "All policies compute as many rows as was asked for, within 2 points of the canvas." in text


def test_failures_are_told():
    failure = FailureRecord(
        task="sums", seed=0, problem=3, policy="dual", decoder="confidence", error="PolicyError", message="bad rows"
    )
    results = make_results(record("none", 0), failures=[failure])
    assert summarize(results)[1].failure == failure
    assert describe_findings(summarize(results)) == [
        "dual with confidence failed on problem 3 of sums (PolicyError): bad rows"
    ]
