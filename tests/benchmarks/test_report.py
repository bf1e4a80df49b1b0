"""The tables of the page, from files of results; the page shows what the stored files say."""

from __future__ import annotations

import json

import pytest

from benchmarks.plot import step_times, where_time_goes
from benchmarks.profile import PARTS, Profile
from benchmarks.report import PAGE, RESULTS, TABLES, render

PROFILE = {"policy": "dual", "dtype": "float32", "steps": 8, "parts": dict.fromkeys(PARTS, 2.0)}


def test_a_table_without_results_stays_as_it_is(tmp_path):
    text = "<!-- measured: profile -->\nold\n<!-- end -->\n"
    assert render(text, tmp_path) == text


def test_a_table_is_replaced_by_what_was_measured(tmp_path):
    (tmp_path / "profile.json").write_text(json.dumps([PROFILE]))
    text = render("before\n<!-- measured: profile -->\nold\n<!-- end -->\nafter\n", tmp_path)
    assert "old" not in text
    assert f"| `dual` | float32 | {2.0 * len(PARTS):.1f} |" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    (tmp_path / "profile.json").write_text(json.dumps([{**PROFILE, "policy": "none"}]))
    assert "`dual`" not in render(text, tmp_path)


def test_the_page_has_a_place_for_every_table():
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"<!-- measured: {name} -->" in text for name in TABLES)


def test_the_page_shows_the_stored_results():
    """Run ``python -m benchmarks.report`` after measuring."""
    text = PAGE.read_text(encoding="utf-8")
    assert render(text, RESULTS) == text


def test_shares_of_a_profile():
    profile = Profile(**PROFILE)
    assert profile.total == 2.0 * len(PARTS)
    assert profile.matrix_share == pytest.approx(5 / len(PARTS))
    assert profile.deciding_share == pytest.approx(2 / len(PARTS))


def test_pictures_name_every_policy_and_its_time():
    profiles = where_time_goes([Profile(**PROFILE), Profile(**{**PROFILE, "policy": "d2cache"})]).render()
    assert "dual, float32" in profiles
    assert "d2cache, float32" in profiles
    entry = {
        "name": "test_step[dual-x]",
        "extra_info": {"size": "small-512+128", "policy": "dual"},
        "stats": {"median": 0.0123},
    }
    run = {**entry, "name": "test_run[dual-x]", "stats": {"median": 9.0}}
    drawn = step_times([entry, run]).render()
    assert "12.3 ms" in drawn
    assert "9000" not in drawn
