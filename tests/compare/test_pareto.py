"""The Pareto front: nobody beats those on it; who is clearly behind is so by whole intervals."""

from __future__ import annotations

import json
import sys

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from freshkv.compare.pareto import COSTS, Candidate, Point, describe_settings, find_candidates, find_standings, point_of
from freshkv.compare.pareto_plot import check_plot, draw, write_plot
from freshkv.compare.records import Header
from freshkv.compare.results import Results
from freshkv.compare.summary import EntrySummary
from freshkv.compare.timing import Speedup
from freshkv.core.errors import InputError, ResultsError
from tests.core.support import examples

grid = st.integers(0, 4).map(lambda value: value / 4)  # few values, so that there are ties


@st.composite
def points(draw) -> Point:
    """A point whose intervals, if it has any, hold its values."""
    accuracy, cost = draw(grid), draw(grid)
    intervals = [
        (max(0.0, v - draw(grid) / 2), v + draw(grid) / 2) if draw(st.booleans()) else None for v in (accuracy, cost)
    ]
    return Point(accuracy=accuracy, cost=cost, accuracy_interval=intervals[0], cost_interval=intervals[1])


many = st.lists(points(), max_size=12)


@examples(200)
@given(many)
def test_the_front_is_what_nobody_beats(chosen):
    standings = find_standings(chosen)
    for point, standing in zip(chosen, standings, strict=True):
        rivals = [o for o in chosen if o.accuracy >= point.accuracy and o.cost <= point.cost]
        beaten = any(o.accuracy > point.accuracy or o.cost < point.cost for o in rivals)
        assert (standing == "front") == (not beaten)
    assert not chosen or "front" in standings


@examples(200)
@given(many)
def test_who_is_behind_is_beaten_by_somebody_whatever_the_true_values_in_the_intervals_are(chosen):
    def ends(value, interval):
        return (value, value) if interval is None else interval

    for point, standing in zip(chosen, find_standings(chosen), strict=True):
        best = max(ends(point.accuracy, point.accuracy_interval)), min(ends(point.cost, point.cost_interval))
        worst = [
            (min(ends(o.accuracy, o.accuracy_interval)), max(ends(o.cost, o.cost_interval)))
            for o in chosen
            if o is not point
        ]
        surely_beaten = any(accuracy > best[0] and cost <= best[1] for accuracy, cost in worst)
        assert (standing == "behind") == surely_beaten


@examples(100)
@given(many, st.randoms(use_true_random=False))
def test_the_order_of_entries_does_not_matter(chosen, randomness):
    order = list(range(len(chosen)))
    randomness.shuffle(order)
    assert find_standings([chosen[place] for place in order]) == tuple(find_standings(chosen)[place] for place in order)


@examples(100)
@given(many)
def test_exact_numbers_leave_no_perhaps_but_for_equal_accuracy(chosen):
    exact = [evolve(point, accuracy_interval=None, cost_interval=None) for point in chosen]
    for point, standing in zip(exact, find_standings(exact), strict=True):
        if standing == "perhaps":
            assert not any(other.accuracy > point.accuracy and other.cost <= point.cost for other in exact)


def test_equal_points_are_on_the_front_together():
    twice = Point(accuracy=0.5, cost=1.0)
    assert find_standings([twice, twice, Point(accuracy=0.5, cost=2.0)]) == ("front", "front", "perhaps")


def summary(**changes):
    fields = {
        "task": "weave", "policy": "dual", "decoder": "confidence", "sequences": 20, "accuracy": 0.5,
        "accuracy_interval": (0.3, 0.7), "forwards": 64.0, "rows_share": 0.25, "tokens_per_second": 100.0,
        "speed": Speedup(median=2.0, interval=(1.6, 2.5), batches=20),
    }  # fmt: skip
    return EntrySummary(**{**fields, **changes})


def test_costs_are_of_the_whole_response_a_step_and_a_token():
    assert [COSTS[cost](summary()) for cost in COSTS] == [16.0, 0.25, 0.01]
    seconds = point_of(summary(), "seconds")
    assert seconds.cost_interval == pytest.approx((0.008, 0.0125))
    assert point_of(summary(), "rows").cost_interval is None


@pytest.mark.parametrize("changes", [{"role": "oracle"}, {"accuracy": None}, {"tokens_per_second": None}])
def test_references_and_what_was_not_measured_do_not_compete(changes):
    assert point_of(summary(**changes), "seconds") is None


def results(path, **facts):
    experiment = {"tasks": ["weave"], "decoders": ["confidence"], "policies": ["none"], "batch_size": 1, **facts}
    header = Header(created="", model="nets/tiny", experiment=experiment, environment={})
    return Results(path=path, header=header, sequences=(), failures=())


def test_settings_name_what_differs_and_nothing_else(tmp_path):
    several = [
        results(tmp_path, block_length=length, gen_lengths={"weave": 8, "sums": 8}, seeds=[0, 1])
        for length in (8, None)
    ]
    assert describe_settings(several) == ["block_length=8", "block_length=none"]
    assert describe_settings(several[:1]) == [""]
    longer = results(tmp_path, block_length=8, gen_lengths={"weave": 16, "sums": 16}, seeds=[0, 1])
    assert describe_settings([several[0], longer]) == ["gen_lengths=8", "gen_lengths=16"]


def test_entries_of_all_files_of_a_model_compete(experiment, tmp_path):
    from freshkv.compare import run_experiment

    every = [
        run_experiment(experiment(problems=1, block_length=length), tmp_path / f"{length}.jsonl") for length in (4, 8)
    ]
    candidates = find_candidates(every)
    assert [(c.summary.policy, c.setting) for c in candidates] == [
        (policy, f"block_length={length}") for length in (4, 8) for policy in ("none", "dual")
    ]
    best = min(candidates, key=lambda c: (-c.summary.accuracy, c.summary.rows_share * c.summary.forwards))
    assert best.standings["rows"] == "front"
    assert best.name == "dual with confidence, block_length=4"


def candidate(standing, cost="rows", **changes):
    return Candidate(model="tiny", setting="", summary=summary(**changes), standings=dict.fromkeys(COSTS, standing))


def test_a_plot_holds_every_entry_by_its_standing(tmp_path):
    pytest.importorskip("plotly", reason="needs plotly: pip install 'freshkv[report]'")
    chosen = [candidate("front"), candidate("perhaps", policy="none"), candidate("behind", task="sums", accuracy=0.1)]
    figure = json.loads(draw(chosen).to_json())
    marks = [trace for trace in figure["data"] if trace["mode"] == "markers"]
    assert [(trace["name"], trace["text"]) for trace in marks[:2]] == [
        ("on the front", ["dual with confidence"]), ("perhaps on the front", ["none with confidence"]),
    ]  # fmt: skip
    assert len(marks) == 9
    assert [trace["name"] for trace in figure["data"] if trace["showlegend"]] == [
        "front", "on the front", "perhaps on the front", "clearly behind",
    ]  # fmt: skip
    write_plot(chosen, tmp_path / "new" / "plot.html")
    text = (tmp_path / "new" / "plot.html").read_text(encoding="utf-8")
    assert "dual with confidence" in text
    assert "<script src=" not in text, "the page fetches something"


def test_a_plot_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"expected one that ends with \.html, \.png"):
        check_plot("plot.doc")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    monkeypatch.setattr("freshkv.compare.pareto_plot.find_spec", lambda name: None if name == "kaleido" else object())
    with pytest.raises(InputError, match="pip install kaleido"):
        check_plot("plot.png")
    monkeypatch.setattr("freshkv.compare.pareto_plot.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'freshkv\[report\]'"):
        check_plot("plot.html")


def test_a_plot_without_a_place_is_an_error_that_keeps_the_results(tmp_path):
    pytest.importorskip("plotly", reason="needs plotly: pip install 'freshkv[report]'")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="The results are kept"):
        write_plot([candidate("front")], tmp_path / "file" / "plot.html")
