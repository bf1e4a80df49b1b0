"""Recorded passes give what passes give that are run one by one. A recording without a device stands in for a graph."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import freshkv
from freshkv.core import graphs
from freshkv.core.canvas import Canvas
from freshkv.core.errors import InputError
from freshkv.core.generate import run_canvas
from freshkv.core.graphs import FilledRows, Made, RecordedPasses, filled_width, record_eagerly
from freshkv.core.loop import RunOptions
from freshkv.core.rows import RowSet
from freshkv.core.sampling import Sampling
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape
from tests.core.schedule import Schedule, run_narrow, schedules
from tests.core.support import any_decoder, any_policy, examples


class Counting:
    """Recordings that were made."""

    def __init__(self):
        self.made = 0

    def __call__(self, work):
        self.made += 1
        return record_eagerly(work)


@examples(60)
@given(schedule=schedules(same_in_all_layers=True, count=3), fine=st.integers(1, 4), inside=st.booleans())
def test_recorded_passes_leave_the_same_behind(schedule: Schedule, fine: int, inside: bool) -> None:
    """The rollout, too, whether it is recorded with the pass (``inside``) or computed from queries behind it."""
    with patch.object(graphs, "FINE", fine):
        options = {"carried": False, "keep_paid": True, "keep_rollout": inside}
        plain = schedule.engine_of(schedule.is_valid, **options)
        recorded = schedule.engine_of(schedule.is_valid, **options, record=record_eagerly)
        for step in schedule.steps:
            results = [run_narrow(engine, step) for engine in (plain, recorded)]
            (first, hidden), (second, replayed) = results
            rows = step.rows[0]
            schedule.assert_same(hidden[rows], replayed[rows])
            assert first.rows.counts == second.rows.counts
            for layer in range(schedule.shape.layers):
                schedule.assert_same(plain.store.keys(layer), recorded.store.keys(layer))
                schedule.assert_same(plain.store.values(layer), recorded.store.values(layer))
            torch.testing.assert_close(plain.rollout(), recorded.rollout(), rtol=1e-4, atol=1e-6)
            block = step.rows[0]
            torch.testing.assert_close(
                plain.attention_received(block), recorded.attention_received(block), rtol=1e-4, atol=1e-6
            )


@examples(40)
@given(policy=any_policy(), decoder=any_decoder(), seed=st.integers(0, 2**16), fine=st.integers(1, 6))
def test_whole_runs_are_the_same(policy, decoder, seed, fine):
    """Sequences that leave the batch included: what was recorded for more of them is forgotten."""
    shape = NetworkShape(layers=2, heads=2, kv_heads=1, head_width=8, vocabulary=30, mask_token_id=29, double=True)
    network = tiny_network(shape)
    prompts = torch.randint(0, 28, (3, 4), generator=torch.Generator().manual_seed(seed))
    padding = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]])
    canvas = Canvas.create(prompts, padding, 8, 4, network.network_spec, network.device, eos_token_id=7)
    common = {"policy": policy, "decoder": decoder, "sampling": Sampling(temperature=0.5), "seeds": (1, 2, 3)}
    with patch.object(graphs, "FINE", fine):
        plain, recorded = (
            run_canvas(network, canvas, RunOptions(**common, record=record)) for record in (None, record_eagerly)
        )
    assert torch.equal(plain.sequences, recorded.sequences)
    assert plain.stats.rows_computed == recorded.stats.rows_computed
    assert all(torch.equal(a.refreshed, b.refreshed) for a, b in zip(plain.trace, recorded.trace, strict=True))


def test_one_recording_serves_every_step_of_its_width():
    """dual: the first pass of a run finds no cache and is not recorded; later blocks open with a full pass."""
    network, counting = tiny_network(NetworkShape(vocabulary=30, mask_token_id=29)), Counting()
    canvas = Canvas.create(torch.arange(20)[None], None, 32, 8, network.network_spec, network.device)
    options = RunOptions(
        policy=freshkv.policies()["dual"](), decoder=freshkv.decoders()["confidence"](), sampling=Sampling(),
        seeds=(0,), record=counting,
    )  # fmt: skip
    run = run_canvas(network, canvas, options)
    assert run.stats.forwards == 32
    assert counting.made == 2  # a block, and everything


@given(widest=st.integers(1, 5000), more=st.integers(0, 3000))
def test_rows_are_filled_up_by_a_quarter_at_most_once_they_are_many(widest, more):
    seq = widest + more
    width = filled_width(widest, seq)
    assert widest <= width <= seq
    assert width - widest < (16 if widest <= 128 else 64)
    assert filled_width(width, seq) == width


@given(masks=st.lists(st.lists(st.booleans(), min_size=6, max_size=6).filter(any), min_size=1, max_size=4))
def test_filled_rows_repeat_their_own_sequence_and_give_back_each_row_once(masks):
    mask = torch.tensor(masks)
    rows = RowSet.of(mask)
    width = rows.widest + 1 if rows.widest < 6 else 6
    filled = FilledRows.of(rows, width)
    by_sequence = filled.flat.view(len(masks), width)
    for place, chosen in enumerate(by_sequence.tolist()):
        assert {index - 6 * place for index in chosen} == {i for i, is_chosen in enumerate(masks[place]) if is_chosen}
    assert torch.equal(filled.chosen(filled.flat, rows.count), rows.flat)
    assert torch.equal(filled.flat[filled.real], rows.flat)


def test_buffers_are_filled_anew_for_every_pass():
    rows = RowSet.of(torch.tensor([[True, True, False]]))

    def layers(tokens: torch.Tensor, chosen: RowSet, real: torch.Tensor) -> Made:
        taken = chosen.take(tokens.flatten())
        return Made((taken,), ((taken * real).sum(),))

    with patch.object(graphs, "FINE", 3):
        passes = RecordedPasses(record_eagerly, layers, rows.mask)
        first = passes.run(torch.tensor([[1, 2, 3]]), rows)
        assert (first.of_rows[0].tolist(), first.of_canvas[0].item()) == ([1, 2], 3)
        second = passes.run(torch.tensor([[5, 6, 7]]), RowSet.of(torch.tensor([[False, True, True]])))
        assert (second.of_rows[0].tolist(), second.of_canvas[0].item()) == ([6, 7], 13)


def test_cuda_graphs_need_a_cuda_device():
    with pytest.raises(InputError, match=r"cuda_graphs=True needs a model on a CUDA device; this one is on cpu"):
        freshkv.generate(tiny_network(NetworkShape()), torch.tensor([[1, 2]]), gen_length=4, cuda_graphs=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("policy", ["none", "prefix", "dual", "d2cache", "dllm"])
def test_cuda_graphs_decode_the_same_tokens(policy):
    model = freshkv.load("tiny-llada", device="cuda")
    prompt = torch.randint(14, (2, 12), generator=torch.Generator().manual_seed(2))
    runs = [
        freshkv.generate(model, prompt, policy=policy, gen_length=16, block_length=8, cuda_graphs=choice)
        for choice in (False, True)
    ]
    assert torch.equal(runs[0].sequences, runs[1].sequences)
