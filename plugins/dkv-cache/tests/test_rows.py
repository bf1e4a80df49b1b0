"""``dkv-decode`` and ``dkv-greedy``: what every policy owes, and the rows of the greedy one."""

from __future__ import annotations

import pytest

from freshkv.testing import PolicyContract, asked, columns, example_problem
from freshkv.testing.networks import FAMILIES, Family
from freshkv_dkv_cache import DKVDecode, DKVGreedy


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_token_the_next_and_the_masks_nearest_to_it_are_recomputed(family: Family) -> None:
    case, policy = example_problem(family, block_length=12).alone(0), DKVGreedy(window=3, refresh_every=99)
    shift = case.network.network_spec.logits_shift
    views, trace = [view for view, _ in asked(policy, case)], case.run(policy).trace
    for view, step, before in zip(views[1:], trace[1:], trace[:-1], strict=True):
        masks = columns(view.is_masked[0])
        following = max(masks, key=lambda position: (float(view.confidence[0, position]), -position))
        others = sorted(
            (position for position in masks if position != following), key=lambda p: (abs(p - following), p)
        )
        near = {following, *others[:3]}
        expected = {*near, *(position - shift for position in near), *columns(before.committed[0])}
        assert columns(step.refreshed[0]) == sorted(expected)


def test_everything_is_recomputed_at_intervals() -> None:
    trace = example_problem(block_length=12).alone(0).run(DKVGreedy(refresh_every=4)).trace
    assert [number for number, step in enumerate(trace) if bool(step.refreshed.all())] == [0, 4, 8]


class TestDecode(PolicyContract):
    """What every policy owes."""

    policy = DKVDecode
    exact = DKVDecode(refresh_every=1)


class TestGreedy(PolicyContract):
    """What every policy owes."""

    policy = DKVGreedy
    exact = DKVGreedy(refresh_every=1)
