"""Reports that lack something: traces, drift, plotly; and several results in one."""

import sys

import pytest
from attrs import evolve

from freshkv.compare.report import (
    assets,
    latex_table,
    markdown_table,
    page,
    paper_table,
    read_sources,
    render_page,
    write_page,
)
from freshkv.core.errors import InputError, ResultsError


@pytest.fixture
def light(monkeypatch):
    """Pages without the five megabytes that these tests do not look at."""
    monkeypatch.setattr(page, "plotly_script", lambda: "")


def test_without_traces_and_drift_the_page_says_how_to_get_them(source, light):
    text = render_page([evolve(source, traces=(), drifts=())])
    assert "No traces were saved" in text
    assert "No drift was measured" in text
    assert 'id="player"' not in text
    assert 'id="drift-maps"' not in text


def test_results_without_counted_costs_still_make_a_page(source, light):
    uncounted = [evolve(summary, cost=None, flops_speedup=None, bytes_speedup=None) for summary in source.summaries]
    assert "Where the work goes" in render_page([evolve(source, summaries=tuple(uncounted))])


def test_several_results_are_told_apart(results, tmp_path, light):
    other = tmp_path / "other.jsonl"
    other.write_bytes(results.path.read_bytes())
    first, second = read_sources([results.path, other])
    assert first.name != second.name
    text = render_page([first, second])
    assert text.count("<tr data-model=") == 4 * len(first.summaries)
    assert str(other) in text


def test_a_file_given_twice_is_refused(results):
    with pytest.raises(InputError, match="twice"):
        read_sources([results.path, results.path.parent / "." / results.path.name])


def test_without_plotly_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(InputError, match=r"pip install 'freshkv\[report\]'"):
        assets.plotly_script()


def test_a_page_is_written_whole_or_not_at_all(source, tmp_path, light):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ResultsError, match="Choose another file"):
        write_page([source], tmp_path / "taken" / "page.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ResultsError, match="Choose another file"):
        write_page([source], tmp_path / "folder.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.html", "taken"]


def test_the_same_results_give_the_same_page(source, light):
    assert render_page([source]) == render_page([source])


def test_text_that_is_no_unicode_does_not_stop_the_page(source, tmp_path, light):
    odd = evolve(source.traces[0], prompt="half of a pair: \ud83d")
    write_page([evolve(source, traces=(odd,))], tmp_path / "page.html")
    assert "half of a pair" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_results_without_a_single_sequence_make_a_page_and_tables(results, tmp_path, light):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(results.path.read_bytes().splitlines(keepends=True)[0])
    (empty,) = read_sources([path])
    assert "No traces were saved" in render_page([empty])
    for form in (markdown_table, latex_table):
        text = form(paper_table(empty))
        assert "n = 0 problems" in text
        assert "dual" in text
