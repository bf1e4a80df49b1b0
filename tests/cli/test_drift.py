"""``freshkv drift``: tables, files, plots, and what is refused before any work."""

from __future__ import annotations

import json
import re
import sys

import pytest
import torch
from rich.console import Console

from freshkv.cli.drift_tables import detail_table, explain_tables, overview_table, small
from freshkv.cli.steps import StepsDisplay
from freshkv.compare.drift import Drift
from freshkv.compare.drift_plot import draw_drift
from tests.compare.test_drift import fixed_problem, measured

MODEL = ("--task", "weave", "--gen-length", 8, "--block-length", 4)


@pytest.fixture
def short(checkpoint):
    return ("--model", checkpoint, *MODEL)


def printed(renderable, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_policies_stand_side_by_side_and_all_is_saved(invoke, short, tmp_path):
    result = invoke("drift", *short, "--policy", "dual", "--policy", "d2cache:current_k=2", "--output", "d.st")
    assert result.exit_code == 0, result.output
    assert re.search(r"^dual +\d+% ", result.stdout, re.MULTILINE)
    assert re.search(r"^d2cache: +\d+% .*\ncurrent_k=2 ", result.stdout, re.MULTILINE)
    assert result.stderr.startswith("prompt: weave ")
    assert "the uncached run (1 of 3)\ndual (2 of 3)\n" in result.stderr
    assert "drift: d.d2cache-current_k=2.st" in result.stderr
    drifts = [Drift.load(tmp_path / f"d.{name}.st") for name in ("dual", "d2cache-current_k=2")]
    assert [drift.policy for drift in drifts] == ["dual", "d2cache:current_k=2"]
    assert [drift.steps for drift in drifts] == [8, 8]


def test_one_policy_is_saved_under_the_name_that_was_given(invoke, short, tmp_path):
    assert invoke("drift", *short, "--policy", "none", "--output", "none.st").exit_code == 0
    drift = Drift.load(tmp_path / "none.st")
    assert float(drift.keys_norm.nan_to_num().max()) < 1e-5
    assert drift.parted_at is None


def test_without_a_policy_the_built_in_caches_are_measured(invoke, short):
    result = invoke("drift", *short)
    assert result.exit_code == 0, result.output
    for name in ("prefix", "dual", "dllm", "d2cache"):
        assert re.search(rf"^{name} +\d+% ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "dul"), "Did you mean 'dual'"),
        (("--output", "nowhere/d.st"), "there is no folder nowhere"),
        (("--plot", "drift.jpg"), r"expected one that ends with .html"),
        (("--plot", "nowhere/d.html"), "there is no folder nowhere"),
        (("--prompt", "1 2"), "exclude each other"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(invoke, arguments, message):
    result = invoke("drift", "--model", "no/such/model", *MODEL, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "no/such/model" not in result.stderr


def test_help_teaches_with_an_example(invoke):
    result = invoke("drift", "--help")
    assert "freshkv drift --policy dual --policy d2cache" in result.stdout


def test_a_plot_without_plotly_is_refused_with_what_to_install(invoke, short, monkeypatch):
    monkeypatch.setattr("freshkv.compare.pareto_plot.find_spec", lambda name: None)
    result = invoke("drift", *short, "--policy", "dual", "--plot", "d.html")
    assert result.exit_code == 2
    assert "pip install 'freshkv[report]'" in result.stderr


def test_the_plot_is_one_page_that_fetches_nothing(invoke, short, tmp_path):
    pytest.importorskip("plotly", reason="needs plotly: pip install 'freshkv[report]'")
    result = invoke("drift", *short, "--policy", "dual", "--plot", "d.html")
    assert result.exit_code == 0, result.output
    text = (tmp_path / "d.html").read_text(encoding="utf-8")
    assert "plot: d.html" in result.stderr
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)


def test_heat_maps_hold_the_drift_they_are_drawn_from():
    pytest.importorskip("plotly", reason="needs plotly: pip install 'freshkv[report]'")
    drifts = [measured(fixed_problem(), policy) for policy in ("dual", "dllm")]
    figure = json.loads(draw_drift(drifts).to_json())
    maps = [trace for trace in figure["data"] if trace["type"] == "heatmap"]
    assert len(maps) == 5 * 2
    for trace, drift in zip(maps[:2], drifts, strict=True):
        expected = drift.keys_cosine.nanmean(dim=1)
        found = torch.tensor([[torch.nan if x is None else x for x in line] for line in trace["customdata"]])
        torch.testing.assert_close(found, expected, equal_nan=True)
        assert all(line[0] is None for line in trace["z"]), "padding is blank"
    wrong = [trace for trace in figure["data"] if trace["type"] == "scatter"]
    assert [len(trace["x"]) for trace in wrong] == [int(drift.committed_wrong.sum()) for drift in drifts]


def test_tables_fit_into_80_columns_and_say_what_the_summary_says():
    summaries = [measured(fixed_problem(), spec).summary() for spec in ("dual", "d2cache:current_k=2,rollout_p=0.05")]
    tables = [overview_table(summaries), *map(detail_table, summaries)]
    for table in tables:
        text = printed(table)
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text
    lines = re.findall(r"^  (\S+) +\d+% +(.*)$", printed(tables[1]), re.MULTILINE)
    assert [name for name, _ in lines[:7]] == ["0", "1", "2", "prompt", "decided", "block", "suffix"]
    deepest = summaries[0].by_layer[2]
    assert lines[2][1].split()[:2] == [small(deepest.keys_cosine), small(deepest.values_cosine)]
    assert "1 - cosine" in explain_tables()


def test_numbers_of_any_size_take_two_digits():
    assert [small(value) for value in (0.0, 1e-16, 1.3e-5, 1.3e-10, 0.0024, 0.25, float("nan"))] == [
        "0", "0", "1.3e-5", "1.3e-10", "0.0024", "0.25", "-"
    ]  # fmt: skip


def test_progress_counts_decided_positions():
    display = StepsDisplay(runs=2, positions=8)
    with display:
        for name in ("one", "two"):
            told = display.begin(name)
            for step in fixed_problem().run("dual", "wino:wide_in=0.05,narrow_out=0.04").trace:
                told(step)
    (task,) = display._bar.tasks
    assert (task.completed, task.total) == (16, 16)


def test_the_modules_of_the_command_need_no_plotly():
    assert "plotly" not in vars(sys.modules["freshkv.compare.drift_plot"])


def test_an_earlier_drift_is_kept_when_a_later_policy_fails(invoke, short, tmp_path, monkeypatch):
    from freshkv.policies.dual import DualCache

    def fail(self, view):
        raise RuntimeError("no such row")

    monkeypatch.setattr(DualCache, "select", fail)
    result = invoke("drift", *short, "--policy", "none", "--policy", "dual", "--output", "d.st")
    assert result.exit_code == 1
    assert "no such row" in result.stderr
    assert Drift.load(tmp_path / "d.none.st").policy == "none"
