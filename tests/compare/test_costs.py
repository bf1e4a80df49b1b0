"""Costs of sequences, and the speed-up that they would allow."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from freshkv.compare import read_results, run_experiment, summarize
from freshkv.compare.costs import bytes_speedup, flops_speedup, mean_cost, shared_cost
from freshkv.core.cost import Cost

COUNTS = st.integers(0, 10**15)
COSTS = st.builds(Cost, **{field.name: COUNTS for field in attrs.fields(Cost)})


@given(COSTS, st.integers(1, 16))
def test_shares_add_up_to_the_whole(cost, parts):
    for field in attrs.fields(Cost):
        assert abs(parts * getattr(shared_cost(cost, parts), field.name) - getattr(cost, field.name)) <= parts / 2


@given(COSTS, st.integers(1, 5))
def test_the_mean_of_equal_costs_is_that_cost(cost, count):
    assert mean_cost([cost] * count) == cost
    assert mean_cost([cost] * count + [None]) is None


def test_nothing_has_no_mean_and_no_speedup():
    assert mean_cost([]) is None
    assert flops_speedup(None, Cost()) is bytes_speedup(Cost(), None) is flops_speedup(Cost(), Cost()) is None


@given(COSTS)
def test_half_the_work_would_be_twice_as_fast(cost):
    twice = cost + cost
    assert flops_speedup(cost, twice) == (None if cost.flops == 0 else 2)
    assert bytes_speedup(cost, twice) == (None if cost.bytes_moved == 0 else 2)


def test_records_hold_costs_and_summaries_what_they_would_allow(experiment, tmp_path):
    results = run_experiment(experiment(), tmp_path / "r.jsonl")
    assert all(record.cost is not None and record.cost.flops > 0 for record in results.sequences)
    assert read_results(tmp_path / "r.jsonl").sequences == results.sequences
    truth, dual = summarize(results)
    assert (truth.flops_speedup, truth.bytes_speedup) == (1, 1)
    assert dual.flops_speedup > 1.2
    assert dual.cost.feed_forward / truth.cost.feed_forward == dual.rows_share


def test_the_cost_of_a_batch_is_shared_out(experiment, tmp_path):
    alone = run_experiment(experiment(), tmp_path / "a.jsonl")
    together = run_experiment(experiment(batch_size=2), tmp_path / "b.jsonl")
    for one, other in zip(summarize(alone), summarize(together), strict=True):
        assert one.cost.feed_forward == other.cost.feed_forward  # rows are the same in a batch
        assert one.cost.bytes_read > other.cost.bytes_read  # and weights are read once for all of it
