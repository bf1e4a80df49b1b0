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
from freshkv.core.canvas import Canvas
from freshkv.core.generate import run_canvas
from freshkv.core.loop import RunOptions
from freshkv.core.projecting import Projections
from freshkv.core.rows import RowSet
from freshkv.core.sampling import Sampling
from freshkv.core.store import RowStore
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape
from tests.core.schedule import Schedule, run_carried, run_naive, run_narrow, schedules
from tests.core.support import any_decoder, any_policy, examples

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
    engine, naive = schedule.engine(carried=False, reuse_projections=True), schedule.naive()
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
    engine, naive = schedule.engine(carried=True, keep_paid=True, reuse_projections=True), schedule.naive()
    for step in schedule.steps:
        (hidden, _), (expected, _) = run_carried(schedule, engine, step), run_naive(schedule, naive, step)
        schedule.assert_naive(hidden, expected)


@examples(30)
@given(policy=any_policy(), decoder=any_decoder(), seed=st.integers(0, 2**16))
def test_whole_runs_are_the_same(policy: freshkv.CachePolicy, decoder: freshkv.Decoder, seed: int) -> None:
    """Sequences that leave the batch included."""
    network = tiny_network(attrs.evolve(SHAPE, double=True))
    prompts = torch.randint(0, 28, (3, 4), generator=torch.Generator().manual_seed(seed))
    padding = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    canvas = Canvas.create(prompts, padding, 8, 4, network.network_spec, network.device, eos_token_id=7)
    common = {"policy": policy, "decoder": decoder, "sampling": Sampling(temperature=0.5), "seeds": (1, 2, 3)}
    plain, reused = (
        run_canvas(network, canvas, RunOptions(**common, reuse_projections=reuse)) for reuse in (False, True)
    )
    assert torch.equal(plain.sequences, reused.sequences)
    assert plain.stats.rows_computed == reused.stats.rows_computed
    assert plain.stats.cost == reused.stats.cost
    assert all(torch.equal(a.refreshed, b.refreshed) for a, b in zip(plain.trace, reused.trace, strict=True))


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
    options = {"policy": policy, "gen_length": 8, "block_length": 4}
    run = freshkv.generate(network, prompt, **options, reuse_projections=True)
    assert torch.equal(run.sequences, freshkv.generate(tiny_network(SHAPE), prompt, **options).sequences)
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
            patch.setattr("freshkv.core.turns.most_rows", lambda element_size, at_once=at_once: at_once)
            queries = Projections(network, store).project(1, hidden, rotary, rows)
        held.append((queries, store.keys(1), store.values(1)))
    for whole, parts in zip(*held, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("most", [4, 100])
@pytest.mark.parametrize("reuse", [False, True])
def test_kept_queries_of_many_rows_are_one_piece_of_memory(monkeypatch, most: int, reuse: bool) -> None:
    monkeypatch.setattr("freshkv.core.turns.most_rows", lambda element_size: most)
    network, generator = tiny_network(SHAPE), torch.Generator().manual_seed(1)
    spec = network.network_spec
    tokens = torch.randint(28, (1, 10), generator=generator)
    rows, hidden = RowSet.everything(tokens), network.embed_rows(tokens.flatten())
    rotary = network.rotary(rows.flat)
    store = RowStore(spec, 1, 10, device=network.device, dtype=network.dtype)

    def kept(worth: int) -> list[Tensor]:
        monkeypatch.setattr("freshkv.core.projecting.WORTH_A_PLACE", worth)
        projections = Projections(network, store, reuse=reuse)
        projections.start(tokens, None)
        projections.together = True
        return [projections.project(layer, hidden, rotary, rows) for layer in (0, 1)]

    apart, together = kept(1 << 30), kept(0)
    assert all(torch.equal(*pair) for pair in zip(apart, together, strict=True))
    first, second = (queries.untyped_storage().data_ptr() for queries in together)
    # what the first layer projects is kept for longer, where it is to be used again
    assert (first == second) == (not reuse)


def test_another_number_of_rows_finds_a_place_of_its_own(monkeypatch) -> None:
    monkeypatch.setattr("freshkv.core.projecting.WORTH_A_PLACE", 0)
    network = tiny_network(SHAPE)
    spec, tokens = network.network_spec, torch.arange(10)[None]
    store = RowStore(spec, 1, 10, device=network.device, dtype=network.dtype)
    projections = Projections(network, store)
    projections.start(tokens, None)
    projections.together = True
    held = []
    for layer, count in enumerate((10, 6)):
        rows = RowSet.of(torch.arange(10)[None] < count)
        hidden, rotary = network.embed_rows(rows.flat), network.rotary(rows.flat)
        queries = projections.project(layer, hidden, rotary, rows)
        assert torch.equal(queries, network.project(layer, hidden, rotary)[0])
        held.append(queries)
    assert held[1].shape[0] == 6
    assert held[1].untyped_storage().data_ptr() != held[0].untyped_storage().data_ptr()


@attrs.frozen
class Scored(freshkv.CachePolicy):
    """Needs scores of every pass."""

    name = "scored"
    needs = frozenset({"attention_scores"})

    def select(self, view: freshkv.StepView) -> freshkv.Selection:
        return freshkv.Selection(predict=view.in_block)


@pytest.mark.parametrize(("policy", "widths"), [("d2cache", {48}), ("dual", set()), (Scored(), {4, 48})])
def test_queries_lie_together_only_where_they_are_needed_behind_the_pass(monkeypatch, policy, widths) -> None:
    """Not where what few rows pay falls off, as in all passes of d2cache on a CPU but those of many rows."""
    monkeypatch.setattr("freshkv.core.projecting.WORTH_A_PLACE", 0)
    monkeypatch.setattr("freshkv.core.kept_attention.MOST_OPEN_ROWS", 40)
    found = set()
    place = Projections._place

    def watched(projections: Projections, layer: int, count: int, like: Tensor) -> Tensor | None:
        given = place(projections, layer, count, like)
        if given is not None:
            found.add(count)
        return given

    monkeypatch.setattr(Projections, "_place", watched)
    prompt = torch.randint(14, (1, 40), generator=torch.Generator().manual_seed(1))
    freshkv.generate(tiny_network(NetworkShape()), prompt, policy=policy, gen_length=8, block_length=4)
    assert found == widths
