"""Properties 2 and 3: narrow path, carried path and the naive executor agree for arbitrary rows; other rows stay."""

from __future__ import annotations

from typing import get_args

import torch
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from freshkv.core.engine import Engine
from freshkv.core.visible import Gathering
from tests.core.schedule import Schedule, run_carried, run_naive, run_narrow, schedules, stored
from tests.core.support import examples

HELD = ("keys", "values", "layer_outputs")


@examples(40)
@given(schedule=schedules(same_in_all_layers=True))
def test_with_the_same_rows_in_all_layers_both_paths_and_the_naive_executor_agree(schedule: Schedule) -> None:
    narrow, carried, naive = schedule.engine(carried=False), schedule.engine(carried=True), schedule.naive()
    for step in schedule.steps:
        (_, packed), (every, _), (expected, _) = (
            run_narrow(narrow, step), run_carried(schedule, carried, step), run_naive(schedule, naive, step)
        )  # fmt: skip
        schedule.assert_same(packed[step.rows[0]], every[step.rows[0]])
        schedule.assert_naive(every, expected)
        for layer in range(schedule.shape.layers):
            for engine in (narrow, carried):
                schedule.assert_naive(engine.store.keys(layer), stored(naive, naive.keys, layer))
                schedule.assert_naive(engine.store.values(layer), stored(naive, naive.values, layer))


@examples(60)
@given(schedule=schedules(same_in_all_layers=True, count=3), gathering=st.sampled_from(get_args(Gathering)))
def test_hidden_keys_may_be_gathered_or_masked(schedule: Schedule, gathering: Gathering) -> None:
    masked = schedule.engine(carried=False, gathering="never")
    engine, naive = schedule.engine(carried=False, gathering=gathering), schedule.naive()
    for step in schedule.steps:
        (_, packed), (_, other) = run_narrow(engine, step), run_narrow(masked, step)
        expected, _ = run_naive(schedule, naive, step)
        rows = step.rows[0]
        schedule.assert_same(packed[rows], other[rows])
        schedule.assert_naive(packed[rows], expected[rows])
        for layer in range(schedule.shape.layers):
            for tensors, held in ((engine.store.keys, naive.keys), (engine.store.values, naive.values)):
                schedule.assert_naive(tensors(layer), stored(naive, held, layer))


@examples(40)
@given(schedule=schedules(same_in_all_layers=True, count=3), gathering=st.sampled_from(get_args(Gathering)))
def test_padding_that_is_never_computed_is_never_read(schedule: Schedule, gathering: Gathering) -> None:
    engine, bare = (schedule.engine(carried=False, gathering=gathering) for _ in range(2))
    for step in schedule.steps:
        _, expected = run_narrow(engine, step)
        rows = step.rows[0] & schedule.is_valid
        if bool(rows.any()):
            _, found = run_narrow(bare, evolve(step, rows=step.rows & schedule.is_valid))
            schedule.assert_same(found[rows], expected[rows])
    assert bool(bare.store.keys(0)[~schedule.is_valid].isnan().all())


@examples(20)
@given(schedule=schedules(same_in_all_layers=False, probes=True, count=3))
def test_on_the_carried_path_too_hidden_keys_may_be_gathered_or_masked(schedule: Schedule) -> None:
    engines = [schedule.engine(carried=True, gathering=gathering) for gathering in get_args(Gathering)]
    for step in schedule.steps:
        first, *others = [run_carried(schedule, engine, step)[0] for engine in engines]
        for other in others:
            schedule.assert_same(first, other)


@examples(40)
@given(schedule=schedules(same_in_all_layers=False, probes=True))
def test_with_other_rows_in_every_layer_and_probes_the_carried_path_is_the_naive_executor(schedule: Schedule) -> None:
    engine, naive = schedule.engine(carried=True), schedule.naive()
    for step in schedule.steps:
        (hidden, seen), (expected, expected_movements) = (
            run_carried(schedule, engine, step), run_naive(schedule, naive, step)
        )  # fmt: skip
        schedule.assert_naive(hidden, expected)
        for movement, expected_movement in zip(seen.movements, expected_movements, strict=True):
            torch.testing.assert_close(movement, expected_movement, rtol=1e-4, atol=1e-5, equal_nan=True)
        for layer in range(schedule.shape.layers):
            schedule.assert_naive(engine.store.keys(layer), stored(naive, naive.keys, layer))
            schedule.assert_naive(engine.store.values(layer), stored(naive, naive.values, layer))
            outputs = engine.store.layer_outputs(layer).unflatten(0, step.tokens.shape)
            added = stored(naive, naive.attention, layer) + stored(naive, naive.feed_forward, layer)
            schedule.assert_naive(outputs, added)


@examples(20)
@given(schedule=schedules(same_in_all_layers=False))
def test_attention_drift_compares_what_the_watched_rows_paid_before_and_pay_now(schedule: Schedule) -> None:
    engine, naive = schedule.engine(carried=True), schedule.naive()
    for step in schedule.steps:
        watched = [[] if step.watch is None else [
            (b, i) for b, i in (step.watch & rows & schedule.is_valid).nonzero().tolist()
        ] for rows in step.rows]  # fmt: skip
        # paid before: cached queries against keys as the last pass left them, seen as in this pass
        before = [[naive.attention_row(layer, place, step.visible) for place in places]
                  for layer, places in enumerate(watched)]  # fmt: skip
        _, seen = run_carried(schedule, engine, step)
        run_naive(schedule, naive, step)
        for layer, places in enumerate(watched):
            expected = torch.full((schedule.is_valid.shape[0],), float("nan"))
            for sequence in {b for b, _ in places}:
                now = torch.stack([naive.attention_row(layer, p, step.visible) for p in places if p[0] == sequence])
                then = torch.stack([paid for p, paid in zip(places, before[layer], strict=True) if p[0] == sequence])
                expected[sequence] = 1 - (now * then).sum() / (now.norm() * then.norm())
            torch.testing.assert_close(seen.drifts[layer], expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def snapshot(engine: Engine, layer: int, *, carried: bool) -> dict[str, Tensor]:
    """Clones of what is held for a layer, each [batch * seq, ...]."""
    names = HELD if carried else HELD[:2]
    shape = engine.store.keys(layer).shape[:2]
    tensors = {name: getattr(engine.store, name)(layer) for name in names}
    return {
        name: (tensor.flatten(0, 1) if tensor.shape[:2] == shape else tensor).clone()
        for name, tensor in tensors.items()
    }


@examples(40)
@given(schedule=schedules(same_in_all_layers=False, probes=True), carried=st.booleans())
def test_rows_that_are_not_refreshed_keep_what_is_cached_bit_for_bit(schedule: Schedule, carried: bool) -> None:
    engine = schedule.engine(carried=carried)
    for step in schedule.steps:
        before = [snapshot(engine, layer, carried=carried) for layer in range(schedule.shape.layers)]
        if carried:
            run_carried(schedule, engine, step)
        else:
            run_narrow(engine, step)
        for layer, held in enumerate(before):
            rows = step.rows[layer if carried else 0].flatten()
            probes = carried and schedule.probes == "values" and schedule.probe_stores and step.probe is not None
            probed = (rows | step.probe[layer].flatten()) if probes else rows
            after = snapshot(engine, layer, carried=carried)
            for name, tensor in held.items():
                stays = ~(probed if name == "values" else rows)
                assert torch.equal(after[name][stays], tensor[stays]), f"{name} of layer {layer}"
            assert not bool(torch.isnan(after["keys"][rows]).any())


@examples(25)
@given(schedule=schedules(same_in_all_layers=False, probes=True, count=3), carried=st.booleans(), data=st.data())
def test_sequences_that_are_kept_go_on_as_if_the_others_had_never_been(
    schedule: Schedule, carried: bool, data: st.DataObject
) -> None:
    batch = schedule.is_valid.shape[0]
    going = sorted(data.draw(st.sets(st.integers(0, batch - 1), min_size=1)))
    engine, alone = (
        schedule.engine(carried=carried),
        schedule.engine_of(schedule.is_valid[going], carried=carried),
    )
    for number, step in enumerate(schedule.steps):
        if number == 2 and len(going) < batch:
            engine.keep(going)
        held = going if number < 2 else list(range(len(going)))
        mine = step if number < 2 else step.take(going)
        if carried:
            here, _ = run_carried(schedule, engine, mine)
            schedule.assert_same(here[held], run_carried(schedule, alone, step.take(going))[0])
        else:
            rows = step.take(going).rows[0]
            here, there = run_narrow(engine, mine)[1][held], run_narrow(alone, step.take(going))[1]
            schedule.assert_same(here[rows], there[rows])
