"""``freshkv report`` from options to files."""

import sys

import pytest

from freshkv.compare.report import page


@pytest.fixture
def results(invoke, small, tmp_path):
    done = invoke("compare", *small, "--policy", "dual", "--decoder", "confidence", "--drift", 1, "--output", "r.jsonl")
    assert done.exit_code == 0, done.output
    return tmp_path / "r.jsonl"


@pytest.fixture
def light(monkeypatch):
    """Pages without the five megabytes of plotly.js."""
    monkeypatch.setattr(page, "plotly_script", lambda: "")


def test_the_page_goes_beside_the_results_unless_it_has_a_name(invoke, results, light):
    done = invoke("report", "r.jsonl")
    assert done.exit_code == 0, done.output
    assert done.stdout == "Report: r.html\n"
    assert "Report: sub/page.html" in invoke("report", "r.jsonl", "--output", "sub/page.html").stdout
    text = results.with_suffix(".html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text == (results.parent / "sub" / "page.html").read_text(encoding="utf-8")


def test_compare_keeps_traces_of_the_first_problem_and_drift_where_asked(results):
    kinds = sorted(path.name.split(".")[1] for path in results.with_name("r.jsonl.traces").iterdir())
    assert kinds == ["drift", "drift", "trace", "trace"]


def test_tables_go_to_files_or_to_standard_output_and_no_page_is_written(invoke, results):
    done = invoke("report", "r.jsonl", "--markdown", "-", "--latex", "table.tex")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Cache policies on ")
    assert "| weave | confidence | dual |" in done.stdout
    assert done.stderr == "Wrote table.tex\n"
    assert r"\toprule" in (results.parent / "table.tex").read_text(encoding="utf-8")
    assert not results.with_suffix(".html").exists()


def test_a_page_and_tables_can_be_written_together(invoke, results, light):
    done = invoke("report", "r.jsonl", "--output", "p.html", "--latex", "t.tex")
    assert done.exit_code == 0, done.output
    assert (results.parent / "p.html").exists()
    assert (results.parent / "t.tex").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--output", "r.jsonl"), "is a results file"),
        (("--latex", "r.jsonl"), "is a results file"),
        (("--latex", "t", "--markdown", "./t"), "Two outputs have the same name"),
    ],
)
def test_nothing_is_written_over(invoke, results, options, complaint):
    before = results.read_bytes()
    done = invoke("report", "r.jsonl", *options)
    assert done.exit_code == 2
    assert complaint in done.stderr
    assert results.read_bytes() == before


def test_what_is_no_results_file_is_named(invoke, tmp_path):
    (tmp_path / "other.jsonl").write_text("{}\n")
    assert "other.jsonl is not a results file" in invoke("report", "other.jsonl").stderr
    missing = invoke("report", "missing.jsonl")
    assert missing.exit_code == 1
    assert "Cannot read results from missing.jsonl" in missing.stderr


def test_without_plotly_tables_are_still_written(invoke, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = invoke("report", "r.jsonl")
    assert done.exit_code == 2
    assert "pip install 'freshkv[report]'" in done.stderr
    assert invoke("report", "r.jsonl", "--markdown", "-").exit_code == 0
