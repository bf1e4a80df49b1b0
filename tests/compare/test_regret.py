"""Where a policy lies between random rows and an oracle."""

import pytest

from freshkv.compare import (
    Entrant,
    Scale,
    Setting,
    describe_findings,
    describe_regret,
    measure_regret,
    run_experiment,
    summarize,
)
from tests.compare.test_summary import make_results, record, with_lineup

ENTRANTS = (
    Entrant(policy="none", given="none"),
    Entrant(policy="dual", given="dual", share=0.25),
    Entrant(policy="prefix", given="prefix", share=0.25),
    Entrant(policy="oracle:budget=0.2", given="dual", role="oracle", share=0.25),
    Entrant(policy="random:budget=0.2", given="dual", role="random", share=0.25),
    Entrant(policy="oracle:budget=0.2", given="prefix", role="oracle", share=0.25),
    Entrant(policy="random:budget=0.2", given="prefix", role="random", share=0.25),
)


def made(right, count=20):
    """Results in which each policy has so many of four tokens right, and solves with three or more."""
    records = [
        record(policy, i, response=tuple(range(tokens)) + (9,) * (4 - tokens), correct=tokens >= 3)
        for i in range(count)
        for policy, tokens in {"none": 4, **right}.items()
    ]
    setting = Setting(task="sums", decoder="confidence", entrants=ENTRANTS)
    return with_lineup(make_results(*records), setting)


def test_a_policy_lies_between_its_references():
    results = made({"dual": 3, "prefix": 1, "random:budget=0.2": 2, "oracle:budget=0.2": 4})
    dual, prefix = measure_regret(results)
    assert (dual.policy, dual.tokens) == ("dual", Scale(own=0.75, random=0.5, oracle=1.0))
    assert (dual.tokens.place, dual.tokens.regret) == (0.5, 0.25)
    assert dual.first_divergence == Scale(own=0.75, random=0.5, oracle=1.0)
    assert dual.accuracy == Scale(own=1.0, random=0.0, oracle=1.0)
    assert dual.tokens_interval == (0.25, 0.25)
    assert (dual.to_oracle.difference, dual.corrected_p) == (0.0, 1.0)
    assert prefix.tokens.place == -0.5
    assert (prefix.to_oracle.difference, prefix.corrected_p) == (-1.0, pytest.approx(2 * 2 / 2**20))
    text = " ".join(describe_regret((dual, prefix)))
    assert "and not by chance: prefix with confidence on sums (-100 points)." in text
    assert "each interval above 0: dual with confidence on sums (-25 points) and prefix" in text
    assert "no more of the uncached run's tokens than rows chosen at random: prefix with confidence on sums." in text


def test_where_random_is_as_good_there_is_no_place():
    regrets = measure_regret(made({"dual": 4, "prefix": 4, "random:budget=0.2": 4, "oracle:budget=0.2": 4}))
    assert [regret.tokens.place for regret in regrets] == [None, None]
    text = " ".join(describe_regret(regrets))
    assert "do not tell one choice of rows from another" in text
    assert "No policy solves fewer problems than an oracle with as many rows by more than chance." in text


def test_references_are_no_competitors():
    results = made({"dual": 3, "prefix": 1, "random:budget=0.2": 2, "oracle:budget=0.2": 4})
    summaries = summarize(results)
    assert [s.corrected_p is None for s in summaries] == [True, False, False, True, True, True, True]
    text = " ".join(describe_findings(summaries))
    assert "oracle" not in text
    assert "random" not in text


def test_without_both_references_there_is_no_regret():
    assert measure_regret(made({"dual": 3, "oracle:budget=0.2": 4})) == ()
    assert measure_regret(make_results(record("none", 0), record("dual", 0))) == ()
    assert describe_regret(()) == []


def test_references_run_beside_each_policy_with_as_many_rows(experiment, tmp_path):
    trial = experiment(policies=["dual", "prefix"], gen_length=16, block_length=8, regret=True)
    results = run_experiment(trial, tmp_path / "r.jsonl")
    regrets = measure_regret(results)
    assert [regret.policy for regret in regrets] == ["dual", "prefix"]
    for regret in regrets:
        assert regret.rows.random == pytest.approx(regret.rows.own, abs=0.03)
        assert regret.rows.oracle == pytest.approx(regret.rows.own, abs=0.03)
        assert 0 <= regret.tokens.own <= 1
