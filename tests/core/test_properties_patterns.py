"""Properties 1 to 4 on networks with other layers and attention patterns: norms of heads, experts, blocks, windows."""

from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import freshkv
from freshkv.core.engine import Engine
from freshkv.core.errors import InputError
from freshkv.core.naive import NaiveExecutor
from freshkv.core.rows import RowSet
from freshkv.core.shift import positions_read_from
from freshkv.testing import NetworkShape, Problem, refreshing_everything
from freshkv.testing.networks import MORE_FAMILIES, tiny_network
from freshkv.testing.strategies import problems
from tests.core.schedule import Schedule, run_carried, run_naive, run_narrow, schedules, stored
from tests.core.support import POLICIES, any_decoder, assert_same_run, examples, policies_of


def with_pattern(shape: NetworkShape, draw: st.DrawFn, blocks: tuple[int | None, ...]) -> NetworkShape:
    """A network of another family of that shape, with one of ``blocks`` where it has blocks."""
    families = MORE_FAMILIES if None in blocks else ("qwen3", "llada2")
    family = draw(st.sampled_from(families))
    return attrs.evolve(
        shape,
        family=family,
        kv_heads=shape.heads if family == "modernbert" else shape.kv_heads,
        shift=draw(st.integers(0, 1)) if family == "qwen3" else 0,
        block_causal=draw(st.sampled_from(blocks)),
        window=draw(st.integers(1, 3)),
    )


@st.composite
def patterned_schedules(draw: st.DrawFn, **options: bool) -> Schedule:
    schedule = draw(schedules(**options))
    return attrs.evolve(schedule, shape=with_pattern(schedule.shape, draw, (None, 1, 2, 3)))


@st.composite
def patterned_problems(draw: st.DrawFn, *, block_causal: bool = False) -> Problem:
    """Windows and experts too, unless ``block_causal``; blocks are those of the network, or divide them."""
    problem = draw(problems(double=True))
    own = problem.block_length
    return problem.evolve(shape=with_pattern(problem.shape, draw, (own,) if block_causal else (None, own, 2 * own)))


def full_canvas(problem: Problem) -> Tensor:
    """bool [batch, seq]: tokens, padding left out."""
    return torch.cat((problem.is_valid, problem.is_valid.new_ones(problem.batch, problem.gen_length)), dim=1)


# The engine


@examples(40)
@given(schedule=patterned_schedules(same_in_all_layers=True))
def test_both_paths_and_the_naive_executor_agree(schedule: Schedule) -> None:
    narrow, carried, naive = schedule.engine(carried=False), schedule.engine(carried=True), schedule.naive()
    for step in schedule.steps:
        (_, packed), (every, _), (expected, _) = (
            run_narrow(narrow, step), run_carried(schedule, carried, step), run_naive(schedule, naive, step)
        )  # fmt: skip
        rows = step.rows[0]
        schedule.assert_same(packed[rows], every[rows])
        schedule.assert_naive(every[rows], expected[rows])
        for layer in range(schedule.shape.layers):
            schedule.assert_naive(narrow.store.keys(layer)[rows], stored(naive, naive.keys, layer)[rows])


@examples(30)
@given(schedule=patterned_schedules(same_in_all_layers=False, probes=True))
def test_with_other_rows_in_every_layer_the_carried_path_is_the_naive_executor(schedule: Schedule) -> None:
    engine, naive = schedule.engine(carried=True), schedule.naive()
    for step in schedule.steps:
        (hidden, _), (expected, _) = run_carried(schedule, engine, step), run_naive(schedule, naive, step)
        schedule.assert_naive(hidden, expected)


@examples(25)
@given(schedule=patterned_schedules(same_in_all_layers=True))
def test_attention_signals_are_those_of_the_rows_that_see(schedule: Schedule) -> None:
    engine, naive = schedule.engine(carried=False, keep_queries=True, keep_paid=True), schedule.naive()
    for step in schedule.steps:
        run_narrow(engine, step)
        run_naive(schedule, naive, step)
    step, rows = schedule.steps[-1], schedule.steps[-1].rows[0] & schedule.is_valid
    received, scores = engine.attention_received(rows), engine.attention_scores(rows)
    for layer in range(schedule.shape.layers):
        for sequence in range(rows.shape[0]):
            asking = rows[sequence].nonzero()[:, 0].tolist()
            paid = [naive.attention_row(layer, (sequence, row), step.visible).mean(dim=0) for row in asking]
            expected = torch.stack(paid).mean(dim=0) if paid else torch.zeros(rows.shape[1])
            torch.testing.assert_close(received[sequence, layer], expected, rtol=1e-4, atol=1e-5)
            assert not scores[sequence, layer][expected == 0].any()


@examples(25)
@given(schedule=patterned_schedules(same_in_all_layers=True))
def test_hidden_keys_may_be_gathered(schedule: Schedule) -> None:
    engine, naive = schedule.engine(carried=False, gathering="always"), schedule.naive()
    for step in schedule.steps:
        (_, packed), (expected, _) = run_narrow(engine, step), run_naive(schedule, naive, step)
        schedule.assert_naive(packed[step.rows[0]], expected[step.rows[0]])


# Runs


@examples(30)
@given(problem=patterned_problems())
def test_the_uncached_run_sees_what_the_plain_model_says(problem: Problem) -> None:
    problem = problem.evolve(sampling=freshkv.core.sampling.Sampling(), eos_token_id=None)
    run, spec, valid = problem.run("none", "confidence"), problem.network.network_spec, full_canvas(problem)
    tokens = torch.cat((problem.input_ids, torch.full((problem.batch, problem.gen_length), spec.mask_token_id)), dim=1)
    for step in run.trace:
        logits = problem.network.forward(tokens, attention_mask=valid).logits.roll(spec.logits_shift, dims=1)
        probabilities = logits.softmax(dim=-1)
        probabilities[..., spec.mask_token_id] = 0
        confidence, proposed = probabilities.max(dim=-1)
        assert torch.equal(step.tokens[step.committed], proposed[step.committed])
        torch.testing.assert_close(
            step.confidence[step.committed], confidence[step.committed].float(), rtol=1e-4, atol=1e-5
        )
        tokens = step.tokens


@pytest.mark.parametrize("name", POLICIES)
def test_a_full_update_set_gives_the_uncached_run(name: str) -> None:
    @examples(8)
    @given(patterned_problems(), policies_of(name), any_decoder())
    def check(problem: Problem, policy: freshkv.CachePolicy, decoder: object) -> None:
        assert_same_run(problem.run(refreshing_everything(policy), decoder), problem.run("none", decoder))

    check()


@examples(40)
@given(
    problem=patterned_problems(block_causal=True),
    # divergence is counted from before a block opens, when the block cache leaves it out
    decoder=any_decoder().filter(lambda decoder: "divergence" not in decoder.needs),
)
def test_the_block_cache_is_exact_on_block_causal_networks(problem: Problem, decoder: object) -> None:
    assert_same_run(problem.run("block", decoder), problem.run("none", decoder))


@examples(25)
@given(problem=patterned_problems(block_causal=True))
def test_keys_of_decided_blocks_are_final(problem: Problem) -> None:
    """What an uncached pass over the end of a run computes is what the pass over a decided block computed."""
    spec, valid = problem.network.network_spec, full_canvas(problem)
    final = problem.run("none").sequences
    whole, part = Engine(problem.network, valid), Engine(problem.network, valid)
    whole.narrow(final, RowSet.of(torch.ones_like(valid)))
    positions = (valid.long().cumsum(dim=1) - 1).clamp(min=0)
    assert spec.block_causal is not None
    decided = positions // spec.block_causal < positions.amax() // spec.block_causal
    behind = torch.where(decided, final, spec.mask_token_id)
    part.narrow(behind, RowSet.of(torch.ones_like(valid)))
    for layer in range(spec.layers):
        torch.testing.assert_close(part.store.keys(layer)[decided], whole.store.keys(layer)[decided])
        torch.testing.assert_close(part.store.values(layer)[decided], whole.store.values(layer)[decided])


@pytest.mark.parametrize("policy", ["none", "block", "dual", "d2cache:current_k=2", "dllm:kp=3,kr=2"])
def test_a_sequence_does_not_depend_on_its_batch_or_padding(policy: str) -> None:
    @examples(12)
    @given(patterned_problems())
    def check(problem: Problem) -> None:
        together = problem.run(policy)
        for sequence in range(problem.batch):
            alone = problem.alone(sequence).run(policy)
            start = problem.padding(sequence)
            assert torch.equal(together.sequences[sequence : sequence + 1, start:], alone.sequences)

    check()


# Blocks of the response


def test_blocks_are_counted_from_the_first_token() -> None:
    shape = NetworkShape(family="qwen3", block_causal=4)
    prompts, padding = torch.ones(2, 6, dtype=torch.long), torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    steps = freshkv.generate(tiny_network(shape), prompts, padding, gen_length=7).trace
    assert {"gen_length": 7, "block_length": 4}.items() <= steps.facts.items()
    # 3 tokens of prompt: 1 position is left of the first block, 6 tokens: 2 positions of the second
    for sequence, first in ((0, 1), (1, 2)):
        order = torch.stack(
            [step.committed[sequence, 6:].nonzero()[0, 0] for step in steps if step.committed[sequence].any()]
        )
        assert sorted(order[:first].tolist()) == list(range(first))
        assert sorted(order[first : first + 4].tolist()) == list(range(first, first + 4))


def test_later_blocks_are_computed_in_the_first_step_alone_by_the_block_cache() -> None:
    shape = NetworkShape(family="qwen3", block_causal=4)
    trace = freshkv.generate(
        tiny_network(shape), torch.ones(1, 6, dtype=torch.long), policy="block", gen_length=10
    ).trace
    assert [step.rows_computed for step in trace] == [16, 4, 8, 4, 4, 4, 8, 4, 4, 4]
    assert trace[0].added[0].nonzero()[:, 0].tolist() == list(range(8, 16))
    for step, end in ((1, 8), (2, 12), (5, 12)):
        assert not trace[step].refreshed[0, end:].any()


@pytest.mark.parametrize("block_length", [3, 8])
def test_blocks_that_do_not_divide_those_of_the_network_are_refused(block_length: int) -> None:
    with pytest.raises(InputError, match=r"block-causal in blocks of 4: .* Give 4, a divisor of it, or None"):
        freshkv.generate(
            tiny_network(NetworkShape(family="qwen3", block_causal=4)), torch.ones(1, 2, dtype=torch.long),
            gen_length=24, block_length=block_length,
        )  # fmt: skip


def test_a_shadow_row_does_not_see_later_blocks() -> None:
    """The verified probability of a decided token stays what it is when a later block changes."""
    network = tiny_network(NetworkShape(family="qwen3", block_causal=3))
    tokens = torch.randint(0, 30, (1, 9), generator=torch.Generator().manual_seed(1))
    changed = torch.where(torch.arange(9)[None] < 6, tokens, tokens.flip(1))
    verify = (torch.arange(9)[None] // 3) == 1
    everything = RowSet.of(torch.ones_like(verify))
    shadows = []
    for canvas in (tokens, changed):
        shadow = Engine(network, torch.ones_like(verify)).narrow(canvas, everything, verify=RowSet.of(verify)).shadow
        assert shadow is not None
        shadows.append(shadow.hidden)
    torch.testing.assert_close(*shadows)
    own = NaiveExecutor(network, torch.ones_like(verify))
    assert positions_read_from(verify, 0).sum() == shadows[0].shape[0]
    assert own.spec.block_causal == 3
