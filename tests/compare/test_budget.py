"""Budgets are measured and matched on other problems, kept in the header, and found again."""

import attrs
import pytest
import torch
from attrs import frozen

import freshkv
from freshkv import CachePolicy, Selection
from freshkv.compare import read_results, run_experiment, runner, summarize
from freshkv.compare.budget import TOLERANCE
from freshkv.compare.entries import entries_of
from freshkv.compare.knob import knob_of, turn
from freshkv.compare.lineup import read_budget
from freshkv.core.errors import InputError, ResultsError, UnknownNameError
from freshkv.core.registry import resolve_policy
from freshkv.testing.networks import NetworkShape, tiny_network


@frozen
class Halves(CachePolicy):
    """A policy that is not registered, with a knob."""

    name = "halves"
    budget_field = "every"

    every: int = attrs.field(default=2, validator=attrs.validators.ge(1))

    def select(self, view):
        return Selection(predict=view.everything if view.step % self.every == 0 else view.in_block)


def share_of(policy):
    """Stands for a measurement: rows that rise or fall with the knob of a policy."""
    shares = {"d2cache": lambda p: 0.1 + p.current_k / 80, "dllm": lambda p: 0.3 + 0.7 / p.kr}
    return shares[policy.name](policy)


@pytest.mark.parametrize(
    ("spec", "target", "expected"),
    [
        ("d2cache", 0.5, "d2cache"),
        ("d2cache", 0.25, "d2cache:current_k=12"),
        ("d2cache:sigma=5", 0.9, "d2cache:current_k=64,sigma=5"),
        ("d2cache", 0.05, "d2cache:current_k=1"),
        ("dllm", 0.5, "dllm:kr=4"),
        ("dllm", 1.0, "dllm:kr=1"),
        ("dllm", 0.2, "dllm:kr=64"),
    ],
)
def test_a_knob_is_turned_to_the_nearest_share(spec, target, expected):
    knob = knob_of(resolve_policy(spec), 64)
    tried = []
    policy, share = turn(knob, target, lambda policy: tried.append(policy.spec) or share_of(policy))
    assert policy.spec == expected
    assert share == pytest.approx(share_of(policy))
    assert len(tried) == len(set(tried)) <= 12
    best = min(abs(share_of(knob.at(value)) - target) for value in range(1, 65))
    assert abs(share - target) <= best + 0.005


def test_a_policy_without_a_knob_has_none_and_a_wrong_one_is_named():
    assert knob_of(resolve_policy("dual"), 64) is None

    @frozen
    class Wrong(Halves):
        budget_field = "often"

    with pytest.raises(InputError, match=r"Wrong.budget_field is 'often', which holds None; expected an option"):
        knob_of(Wrong(), 64)


@pytest.mark.parametrize("name", sorted(name for name, cls in freshkv.policies().items() if cls.budget_field))
def test_the_rows_of_a_policy_follow_its_knob(name):
    """More of it is always more rows, or always fewer: what the search relies on."""
    model = tiny_network(NetworkShape(layers=8))  # deep enough for what changes with depth
    ids = torch.arange(1, 13)[None]
    knob = knob_of(resolve_policy(name), 16)
    ends = [knob.low, knob.low + (knob.high - knob.low) / 3, knob.high]
    policies = [knob.at(knob.rounded(value)) for value in ends]
    rows = [
        freshkv.generate(model, ids, policy=policy, gen_length=16, block_length=8).stats.rows_computed
        for policy in policies
    ]
    assert rows in (sorted(rows), sorted(rows, reverse=True))
    assert rows[0] != rows[-1]


def test_budgets_are_matched_within_the_tolerance_or_said_not_to_be(experiment, tmp_path):
    trial = experiment(
        policies=["dual", "d2cache", "random", "none"], gen_length=16, block_length=8, match_budget=0.3,
        decoders=["confidence", "autoregressive:threshold=1"],
    )  # fmt: skip
    results = run_experiment(trial, tmp_path / "r.jsonl")
    lineup = results.header.lineup
    assert lineup.seed not in trial.seeds
    summaries = {(s.given, s.decoder): s for s in summarize(results)}
    for decoder in ("confidence", "autoregressive:threshold=1"):
        none, dual, d2cache, random = (summaries[name, decoder] for name in ("none", "dual", "d2cache", "random"))
        assert (none.is_matched, none.policy) == (None, "none")
        assert (dual.is_matched, dual.policy) == (False, "dual")
        assert d2cache.is_matched
        assert d2cache.policy.startswith("d2cache:current_k=")
        assert random.is_matched
        for matched in (d2cache, random):
            assert abs(matched.calibrated_share - 0.3) <= TOLERANCE
            assert abs(matched.rows_share - 0.3) <= 2 * TOLERANCE


def test_the_target_can_be_a_policy_that_is_then_among_them(experiment, tmp_path):
    trial = experiment(policies=["random"], gen_length=16, block_length=8, match_budget="dual")
    _, random, dual = summarize(run_experiment(trial, tmp_path / "r.jsonl"))
    assert (random.given, dual.policy) == ("random", "dual")
    assert abs(random.calibrated_share - dual.calibrated_share) <= TOLERANCE
    assert dual.rows_share == pytest.approx(dual.calibrated_share, abs=1e-4)  # every problem has as many steps


def test_calibration_sees_none_of_the_problems_that_are_compared(experiment, tmp_path, monkeypatch):
    seen = []
    from freshkv.compare import budget

    original = budget.decode
    monkeypatch.setattr(budget, "decode", lambda *args: seen.extend(args[2].cases) or original(*args))
    trial = experiment(policies=["random"], match_budget=0.5, seeds=[0, 1_000_003])
    results = run_experiment(trial, tmp_path / "r.jsonl")
    assert seen
    assert {case.seed for case in seen} == {results.header.lineup.seed} == {1_000_004}
    assert {record.seed for record in results.sequences} == {0, 1_000_003}


def test_a_begun_file_keeps_its_line_up_and_is_continued(experiment, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    trial = experiment(policies=["random", Halves()], match_budget=0.5, regret=True)
    whole = run_experiment(trial, path)
    data = path.read_bytes()
    path.write_bytes(b"".join(data.splitlines(keepends=True)[:3]))

    def no_calibration(*_):
        raise AssertionError("calibrated again")

    monkeypatch.setattr("freshkv.compare.budget.calibrate", no_calibration)
    continued = run_experiment(trial, path)
    assert continued.header == whole.header
    key = attrs.filters.include("policy", "problem", "response", "rows_computed")
    assert [attrs.asdict(r, filter=key) for r in continued.sequences] == [
        attrs.asdict(r, filter=key) for r in whole.sequences
    ]
    with pytest.raises(ResultsError, match=r"match_budget is 0\.5 there and 0\.25 here"):
        run_experiment(experiment(policies=["random", Halves()], match_budget=0.25, regret=True), path)


def test_the_same_experiment_is_calibrated_to_the_same_line_up(experiment, tmp_path):
    lineups = [
        run_experiment(experiment(policies=["d2cache"], match_budget=0.5), tmp_path / name).header.lineup
        for name in "ab"
    ]
    assert lineups[0] == lineups[1]


def test_an_object_that_is_not_registered_is_tuned_by_its_class(experiment):
    trial = experiment(policies=[Halves()], match_budget=0.5)
    from freshkv.compare import Entrant, Lineup, Setting

    entrants = (Entrant(policy="none", given="none"), Entrant(policy="halves:every=5", given="halves"))
    setting = Setting(task="weave", decoder="confidence", entrants=entrants)
    lineup = Lineup(seed=9, problems=1, settings=(setting,))
    assert [entry.policy for entry in entries_of(trial, "weave", lineup)][1] == Halves(every=5)


def test_a_policy_that_breaks_in_calibration_breaks_in_the_run_and_the_others_go_on(experiment, tmp_path, broken):
    results = run_experiment(experiment(policies=[broken, "random"], match_budget=0.5), tmp_path / "r.jsonl")
    assert [failure.policy for failure in results.failures] == ["broken"]
    assert {record.policy.split(":")[0] for record in results.sequences} == {"none", "random"}
    with pytest.raises(InputError, match="The budget of broken with confidence on weave cannot be measured"):
        run_experiment(experiment(policies=[broken], match_budget=broken), tmp_path / "s.jsonl")


def test_warm_up_and_turns_follow_the_line_up(experiment, tmp_path, monkeypatch):
    works = []
    original = runner.decode
    monkeypatch.setattr(runner, "decode", lambda *args: works.append(args[2]) or original(*args))
    run_experiment(experiment(policies=["dual"], regret=True), tmp_path / "r.jsonl")
    names = [work.entry.policy.name for work in works]
    assert names == ["none", "dual", "oracle", "random"] * 3


def test_a_file_cut_before_its_header_ends_is_calibrated_anew(experiment, tmp_path):
    path = tmp_path / "r.jsonl"
    trial = experiment(policies=["random"], match_budget=0.5)
    whole = run_experiment(trial, path)
    path.write_bytes(path.read_bytes()[:40])
    assert run_experiment(trial, path).header.lineup == whole.header.lineup == read_results(path).header.lineup


@pytest.mark.parametrize(("value", "expected"), [(None, None), ("0.25", 0.25), (1, 1.0), ("dual", "dual"),
                                                 ("d2cache:sigma=10,current_k=4", "d2cache:current_k=4")])  # fmt: skip
def test_a_budget_is_a_share_or_a_policy(value, expected):
    assert read_budget(value) == expected


@pytest.mark.parametrize(("value", "error"), [("duel", UnknownNameError), (0, InputError), (1.5, InputError),
                                              ("nan", InputError), (True, InputError)])  # fmt: skip
def test_other_budgets_are_refused(value, error):
    with pytest.raises(error):
        read_budget(value)
