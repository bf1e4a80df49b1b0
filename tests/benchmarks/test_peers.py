"""Turns, times and ratios of the comparison with published implementations. Theirs are not needed here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.gate import CutShortError, Gate
from benchmarks.peers.methods import METHODS, Setting
from benchmarks.peers.statistics import mean_step, ratio_interval, samples_by_kind, step_interval
from tests.core.support import examples


@given(steps=st.integers(1, 40), turn=st.integers(1, 12))
def test_a_gate_hands_over_every_step_once(steps, turn):
    turns = []
    gate = Gate(turn, steps, lambda times: turns.append(len(times)))
    for _ in range(steps):
        gate.step_begins()
    gate.run_ends()
    assert gate.steps == sum(turns) == steps
    assert all(length == turn for length in turns[:-1])


@given(most=st.integers(1, 20), turn=st.integers(1, 12))
def test_a_gate_cuts_a_run_short(most, turn):
    turns = []
    gate = Gate(turn, most, lambda times: turns.append(len(times)))

    def run() -> None:
        while True:
            gate.step_begins()

    with pytest.raises(CutShortError):
        run()
    assert gate.steps == sum(turns) == most


@pytest.mark.parametrize("name", sorted(METHODS))
def test_steps_that_are_enough_show_every_kind(name):
    setting, method = Setting(), METHODS[name]
    kinds = method.kinds(setting)
    assert len(kinds) == setting.steps
    for least in (1, 2, 3):
        seen = kinds[1 : method.enough(setting, least)]
        assert all(seen.count(kind) >= min(least, kinds[1:].count(kind)) for kind in set(kinds))


def test_a_mean_step_weighs_kinds_as_a_run_does():
    kinds = ["long", "short", "short", "short"]
    samples = samples_by_kind([[9.0, 1.0], [8.0, 1.0, 2.0, 3.0]], kinds)
    assert samples["long"].tolist() == [8.0]  # the first step of all warms up
    assert mean_step(samples, kinds) == (8.0 + 3 * 1.5) / 4


def test_a_kind_that_was_never_seen_has_no_mean():
    assert np.isnan(mean_step(samples_by_kind([[1.0]], ["first"]), ["first", "later"]))


@examples(10)
@given(factor=st.floats(0.1, 10.0), seed=st.integers(0, 50))
def test_a_ratio_is_found_within_its_interval(factor, seed):
    generator = np.random.default_rng(seed)
    kinds = ["a", "b", "b", "b"] * 8
    fast = samples_by_kind([list(generator.uniform(1, 1.2, len(kinds)))], kinds)
    slow = {kind: values * factor for kind, values in fast.items()}
    ratio = ratio_interval(slow, fast, kinds, draws=60)
    assert ratio.low <= ratio.value <= ratio.high
    assert ratio.value == pytest.approx(factor)
    step = step_interval(fast, kinds, draws=60)
    assert 1 <= step.low <= step.value <= step.high <= 1.2
