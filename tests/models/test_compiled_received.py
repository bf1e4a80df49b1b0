"""What keys receive from many rows, compiled, is what the open attention pays."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import freshkv
from freshkv.core.attention import weighted_attention
from freshkv.core.rows import RowSet
from freshkv.models.compiled import CompiledAttention
from freshkv.models.compiled.attention import TILE_WIDTH
from tests.models.layouts import needs_compiled
from tests.models.test_compiled_attention import NEAR, heads, some_rows


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@example(batch=3, seq=90, share=1.0, group=2, kv_heads=3, width=32, hides=True, threads=3)
@given(
    batch=st.integers(1, 3),
    seq=st.integers(1, 90),
    share=st.sampled_from([0.02, 0.3, 1.0]),
    group=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    width=st.sampled_from([2, 6, 32, 64]),
    hides=st.booleans(),
    threads=st.integers(1, 3),
)
def test_what_keys_receive_is_what_the_open_attention_pays(
    dtype, batch, seq, share, group, kv_heads, width, hides, threads
):
    needs_compiled()
    rows = some_rows(batch, seq, share)
    queries, keys, _ = heads(dtype, rows.count, batch, seq, group * kv_heads, kv_heads, width)
    weights = torch.rand(rows.count, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    visible = None
    if hides:
        visible = torch.rand(batch, seq, generator=torch.Generator().manual_seed(1)) < 0.6
        visible[:, -1] = True
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        received = CompiledAttention().weigh(queries, keys, weights, rows, visible)
    finally:
        torch.set_num_threads(before)
    if dtype == torch.bfloat16 and width % TILE_WIDTH > 0:
        assert received is None
        return
    expected = weighted_attention(queries.float(), keys.float(), weights, rows, visible)
    torch.testing.assert_close(received, expected, rtol=1e-4, atol=1e-5)
    if visible is not None:
        assert (received[~visible] == 0).all()


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("count", [5, 20, 40])
def test_what_is_no_number_in_one_sequence_does_not_reach_what_others_receive(dtype, count):
    needs_compiled()
    rows = RowSet.of((torch.arange(40) < count).expand(2, -1))
    queries, keys, _ = heads(dtype, 2 * count, 2, 40, 4, 2, 32)
    weights = torch.ones(2 * count)
    expected = CompiledAttention().weigh(queries, keys, weights, rows, None)
    keys[1, 1, 5, 0] = torch.nan
    received = CompiledAttention().weigh(queries, keys, weights, rows, None)
    assert torch.equal(received[0], expected[0])
    assert received[1].isnan().all()


def test_a_key_that_is_infinite_does_not_reach_the_lanes_without_a_row():
    needs_compiled()
    rows = RowSet.of(torch.arange(40)[None] < 3)
    queries, keys, _ = heads(torch.float32, 3, 1, 40, 2, 2, 32)
    queries, keys[:, :, 7] = queries.abs(), -torch.inf  # nobody attends to that key
    received = CompiledAttention().weigh(queries, keys, torch.ones(3), rows, None)
    assert received[0, 7] == 0.0
    torch.testing.assert_close(received.sum(), torch.tensor(3.0))


def test_a_run_whose_first_pass_weighs_many_rows_is_the_same(monkeypatch):
    """On a canvas of more rows than are paid for one by one; the same choice of rows."""
    needs_compiled()
    weighed, weigh = [], CompiledAttention.weigh

    def watched(own, queries, keys, weights, rows, visible):
        weighed.append(rows.count)
        return weigh(own, queries, keys, weights, rows, visible)

    monkeypatch.setattr(CompiledAttention, "weigh", watched)
    prompt = torch.randint(14, (1, 300), generator=torch.Generator().manual_seed(1))
    runs = [
        freshkv.generate(freshkv.load("tiny-llada", **load), prompt, policy="d2cache", gen_length=8, block_length=4)
        for load in ({}, {"prepacked": "compiled"})
    ]
    assert set(weighed) == {308}  # the first pass, layer by layer, and no other
    for plain, own in zip(runs[0].trace, runs[1].trace, strict=True):
        assert torch.equal(plain.refreshed, own.refreshed)
        assert torch.equal(plain.tokens, own.tokens)


@pytest.mark.parametrize("dtype", NEAR, ids=str)
def test_what_keys_of_a_sequence_receive_does_not_depend_on_its_batch_by_a_single_bit(dtype):
    needs_compiled()
    rows = some_rows(3, 90, 0.5)
    queries, keys, _ = heads(dtype, rows.count, 3, 90, 4, 2, 32)
    weights = torch.rand(rows.count, generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = CompiledAttention().weigh(queries, keys, weights, rows, None)
        first = 0
        for sequence, count in enumerate(rows.counts):
            mine, some = RowSet.of(rows.mask[sequence : sequence + 1]), slice(first, first + count)
            one = keys[:, sequence : sequence + 1]
            alone = CompiledAttention().weigh(queries[some], one, weights[some], mine, None)
            assert torch.equal(alone[0], together[sequence])
            first += count
    finally:
        torch.set_num_threads(before)


def test_it_leaves_other_numbers_to_torch():
    rows = some_rows(1, 40, 1.0)
    queries, keys, _ = heads(torch.float64, 40, 1, 40, 2, 2, 64)
    assert not CompiledAttention().fits(queries, keys, rows, None, paid=True)
    assert CompiledAttention().weigh(queries, keys, torch.ones(40), rows, None) is None
