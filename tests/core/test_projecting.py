"""Rows whose token stays are not projected again in the first layer, and nobody can tell."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import freshkv
from freshkv.core.projecting import Projections
from freshkv.core.rows import RowSet
from freshkv.core.store import RowStore
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape
from tests.core.schedule import Schedule, run_carried, run_naive, run_narrow, schedules
from tests.core.support import examples

SHAPE = NetworkShape(vocabulary=30, mask_token_id=29, layers=2)


def filled(schedule: Schedule, chosen: list[bool], layers: int) -> Schedule:
    """Every row of the first ``layers`` is refreshed in the ``chosen`` steps."""
    steps = []
    for step, everything in zip(schedule.steps, [True, *chosen], strict=True):
        rows = step.rows.clone()
        if everything:
            rows[:layers] = True
        steps.append(attrs.evolve(step, rows=rows))
    return attrs.evolve(schedule, steps=steps)


@examples(40)
@given(schedule=schedules(same_in_all_layers=True, count=4), chosen=st.lists(st.booleans(), min_size=4, max_size=4))
def test_the_narrow_path_is_the_naive_executor(schedule: Schedule, chosen: list[bool]) -> None:
    schedule = filled(schedule, chosen, schedule.shape.layers)
    engine, naive = schedule.engine(carried=False), schedule.naive()
    for step in schedule.steps:
        (_, hidden), (expected, _) = run_narrow(engine, step), run_naive(schedule, naive, step)
        schedule.assert_naive(hidden[step.rows[0]], expected[step.rows[0]])


@examples(40)
@given(
    schedule=schedules(same_in_all_layers=False, probes=True, count=4),
    chosen=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_the_carried_path_is_the_naive_executor(schedule: Schedule, chosen: list[bool]) -> None:
    schedule = filled(schedule, chosen, 1)
    engine, naive = schedule.engine(carried=True, keep_paid=True), schedule.naive()
    for step in schedule.steps:
        (hidden, _), (expected, _) = run_carried(schedule, engine, step), run_naive(schedule, naive, step)
        schedule.assert_naive(hidden, expected)


class Watched:
    """Rows that a network projects, by layer."""

    def __init__(self, network: Any) -> None:
        self.network, self.rows = network, [[] for _ in range(SHAPE.layers)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def project(self, layer: int, hidden: Tensor, rotary: Any) -> Any:
        self.rows[layer].append(hidden.shape[0])
        return self.network.project(layer, hidden, rotary)


@pytest.mark.parametrize("policy", ["none", "dllm", "prefix"])
@pytest.mark.parametrize("batch", [1, 2])
def test_only_changed_rows_are_projected_where_everything_is_refreshed_again(policy: str, batch: int) -> None:
    network = Watched(tiny_network(SHAPE))
    prompt = torch.randint(28, (batch, 9), generator=torch.Generator().manual_seed(3))
    run = freshkv.generate(network, prompt, policy=policy, gen_length=8, block_length=4)
    seq, before, expected = 17, False, []
    for number, step in enumerate(run.trace):
        everything = bool(step.layer(0).all())
        if everything and before:
            expected.append(int(run.trace[number - 1].committed.sum()))
        else:
            expected.append(int(step.layer(0).sum()))
        before = everything
    assert network.rows[0] == expected
    # in the other layers, and in the first pass, as ever
    assert expected[0] == batch * seq
    assert network.rows[1] == [int(step.layer(1).sum()) for step in run.trace]
    assert (min(expected) == batch) == (policy != "prefix")


@given(seq=st.integers(1, 9), most=st.integers(1, 9), seed=st.integers(0, 99), share=st.sampled_from((0.5, 1.0)))
def test_many_rows_take_turns(seq: int, most: int, seed: int, share: float) -> None:
    network, generator = tiny_network(SHAPE), torch.Generator().manual_seed(seed)
    spec = network.network_spec
    mask = torch.rand(2, seq, generator=generator) < share
    mask[0, 0] = True
    rows = RowSet.of(mask)
    hidden = torch.randn(rows.count, spec.width, generator=generator, dtype=network.dtype)
    rotary = network.rotary(rows.flat % seq)
    held = []
    for at_once in (rows.count, most):
        store = RowStore(spec, 2, seq, device=network.device, dtype=network.dtype)
        nothing = torch.zeros(2 * seq, spec.kv_heads, spec.head_width, dtype=network.dtype)
        store.write_keys(1, RowSet.everything(mask), nothing)
        store.write_values(1, RowSet.everything(mask), nothing)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("freshkv.core.projecting.MOST_ROWS", at_once)
            queries = Projections(network, store).project(1, hidden, rotary, rows)
        held.append((queries, store.keys(1), store.values(1)))
    for whole, parts in zip(*held, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
