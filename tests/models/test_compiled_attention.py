"""Compiled attention equals the open one, for every shape that it says it fits, and keeps rows and sequences apart."""

import subprocess
import sys

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import freshkv
from freshkv.core.attention import attend, attend_openly
from freshkv.core.engine import Engine
from freshkv.core.kept_attention import AttentionOfPass
from freshkv.core.rows import RowSet
from freshkv.models.compiled import CompiledAttention
from freshkv.models.compiled.attention import WORTH_IT, WORTH_IT_PAID
from tests.models.layouts import needs_compiled, why_not_compiled

NEAR = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


def heads(dtype, rows, batch, seq, query_heads, kv_heads, width, seed=0):
    """Queries that are part of something wider, as after a joint projection; keys and values as the store has them."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(rows, query_heads + kv_heads, width, generator=generator)[:, :query_heads]
    keys, values = (torch.randn(kv_heads, batch, seq + 3, width, generator=generator)[:, :, :seq] for _ in range(2))
    return queries.to(dtype), keys.to(dtype), values.to(dtype)


def some_rows(batch, seq, share, seed=0):
    mask = torch.rand(batch, seq, generator=torch.Generator().manual_seed(seed)) < share
    mask[0, 0] = True  # at least one
    return RowSet.of(mask)


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@example(batch=3, seq=70, share=0.1, group=2, kv_heads=3, width=6, hides=True, threads=2)
@given(
    batch=st.integers(1, 3),
    seq=st.integers(1, 90),
    share=st.sampled_from([0.02, 0.3, 1.0]),
    group=st.integers(1, 3),
    kv_heads=st.integers(1, 3),
    width=st.sampled_from([2, 6, 34, 32, 64, 96]),
    hides=st.booleans(),
    threads=st.integers(1, 3),
)
def test_it_equals_the_open_attention(dtype, batch, seq, share, group, kv_heads, width, hides, threads):
    needs_compiled()
    rows = some_rows(batch, seq, share)
    queries, keys, values = heads(dtype, rows.count, batch, seq, group * kv_heads, kv_heads, width)
    visible = None
    if hides:
        visible = torch.rand(batch, seq, generator=torch.Generator().manual_seed(1)) < 0.6
        visible[:, -1] = True
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        attended, paid = CompiledAttention().attend(queries, keys, values, rows, visible, paid=True)
        alone, nothing = CompiledAttention().attend(queries, keys, values, rows, visible, paid=False)
    finally:
        torch.set_num_threads(before)
    expected, shares = attend_openly(queries, keys, values, rows, visible)
    torch.testing.assert_close(attended, expected, rtol=NEAR[dtype], atol=NEAR[dtype])
    torch.testing.assert_close(paid, shares, rtol=1e-4, atol=2e-6)
    assert nothing is None
    assert torch.equal(alone, attended)
    if visible is not None:  # exactly nothing, not only little
        assert (paid[~visible.repeat_interleave(torch.tensor(rows.counts), dim=0)] == 0).all()


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("hidden", ["nothing", "the first keys", "the last keys", "most"])
@pytest.mark.parametrize(("seq", "width", "rows"), [(2100, 64, (40, 3)), (1500, 96, (1, 70)), (4200, 32, (17, 0))])
def test_keys_that_are_taken_in_stretches_count_as_they_do_together(dtype, hidden, seq, width, rows):
    """More than a stretch of them; the largest score of a row comes in any."""
    needs_compiled()
    mask = torch.arange(seq)[None] * 7 % seq < torch.tensor(rows)[:, None]
    chosen = RowSet.of(mask)
    queries, keys, values = heads(dtype, chosen.count, 2, seq, 6, 3, width)
    keys = (keys * torch.linspace(0.2, 3.0, seq)[:, None]).to(dtype)  # far keys count more, stretch after stretch
    keys[1] = keys[1].flip(1)
    visible = {
        "nothing": torch.ones(2, seq, dtype=torch.bool),
        "the first keys": torch.arange(seq).expand(2, -1) > seq * 4 // 5,
        "the last keys": torch.arange(seq).expand(2, -1) < seq // 6,
        "most": torch.arange(seq).expand(2, -1) % 97 == 5,
    }[hidden]
    attended, paid = CompiledAttention().attend(queries, keys, values, chosen, visible, paid=True)
    alone, _ = CompiledAttention().attend(queries, keys, values, chosen, visible, paid=False)
    expected, shares = attend_openly(queries, keys, values, chosen, visible)
    torch.testing.assert_close(attended, expected, rtol=NEAR[dtype], atol=2 * NEAR[dtype])
    torch.testing.assert_close(paid, shares, rtol=1e-4, atol=2e-6)
    torch.testing.assert_close(paid.sum(dim=1), torch.ones(chosen.count))
    assert torch.equal(alone, attended)
    assert (paid[~visible.repeat_interleave(torch.tensor(chosen.counts), dim=0)] == 0).all()


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize(("width", "seq"), [(16, 90), (64, 90), (96, 1400)])
def test_a_row_does_not_depend_on_its_neighbours_by_a_single_bit(dtype, width, seq):
    needs_compiled()
    many, few = some_rows(2, seq, 1.0), some_rows(2, seq, 0.2)
    queries, keys, values = heads(dtype, 2 * seq, 2, seq, 4, 2, width)
    attended, _ = CompiledAttention().attend(queries, keys, values, many, None, paid=False)
    some, _ = CompiledAttention().attend(queries[few.flat], keys, values, few, None, paid=False)
    assert torch.equal(some, attended[few.flat])


@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("where", ["queries", "keys", "values"])
def test_what_is_no_number_stays_in_its_row_or_sequence(where, dtype):
    needs_compiled()
    rows = some_rows(2, 40, 1.0)
    queries, keys, values = heads(dtype, 80, 2, 40, 4, 2, 32)
    expected, shares = CompiledAttention().attend(queries, keys, values, rows, None, paid=True)
    if where == "queries":
        queries[3, 1, 0] = torch.nan
        touched = torch.arange(80) == 3
    else:
        {"keys": keys, "values": values}[where][1, 1, 5, 0] = torch.nan
        touched = torch.arange(80) >= 40
    attended, paid = CompiledAttention().attend(queries, keys, values, rows, None, paid=True)
    assert torch.equal(attended[~touched], expected[~touched])
    assert torch.equal(paid[~touched], shares[~touched])
    assert attended[touched].isnan().flatten(1).any(dim=1).all()
    assert bool(paid[touched].isnan().any()) == (where != "values")


@pytest.mark.parametrize("dtype", NEAR, ids=str)
def test_very_large_scores_are_no_trouble(dtype):
    needs_compiled()
    rows = some_rows(1, 20, 1.0)
    queries, keys, values = heads(dtype, 20, 1, 20, 2, 2, 32)
    queries, keys = 300 * queries, 300 * keys
    attended, paid = CompiledAttention().attend(queries, keys, values, rows, None, paid=True)
    expected, shares = attend_openly(queries, keys, values, rows, None)
    torch.testing.assert_close(attended, expected, rtol=NEAR[dtype], atol=1e-2)
    torch.testing.assert_close(paid, shares, rtol=1e-3, atol=1e-2)


def test_it_leaves_to_torch_what_torch_does_better_or_it_cannot_do():
    rows, dtypes = some_rows(1, 40, 1.0), (torch.float32, torch.bfloat16)
    own = CompiledAttention()
    for dtype in dtypes:
        queries, keys, _ = heads(dtype, 40, 1, 40, 2, 2, 64)
        for paid, worth in ((True, WORTH_IT_PAID), (False, WORTH_IT)):
            assert own.fits(queries, keys, rows, None, paid=paid) == (40 in worth[dtype])
            assert not own.fits(queries, keys, rows, torch.ones(1, 40, 40, dtype=torch.bool), paid=paid)
            assert not own.fits(queries.mT, keys, rows, None, paid=paid)
            narrow = own.fits(queries[..., :16], keys[..., :16], rows, None, paid=paid)
            assert narrow == (dtype == torch.float32)


@pytest.mark.parametrize("paid", [False, True])
@pytest.mark.parametrize("queries_too", [False, True])
def test_a_pass_keeps_the_same_with_it_and_without(paid, queries_too):
    needs_compiled()
    rows = some_rows(2, 30, 0.7)
    queries, keys, values = heads(torch.float32, rows.count, 2, 30, 4, 2, 16)
    with_it, without = (AttentionOfPass(own, queries=queries_too, paid=paid) for own in (CompiledAttention(), None))
    found, expected = (each.attend(queries, keys, values, rows, None) for each in (with_it, without))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, attend(queries, keys, values, rows, None), rtol=1e-5, atol=1e-6)
    assert len(with_it.layers) == len(without.layers)
    for mine, theirs in zip(with_it.layers, without.layers, strict=True):
        assert (mine.queries is None, mine.paid is None) == (theirs.queries is None, theirs.paid is None)
        if paid:
            weights = torch.rand(rows.count)
            expected = theirs.received(weights, keys, None)
            torch.testing.assert_close(mine.received(weights, keys, None), expected, rtol=1e-5, atol=1e-6)


def test_no_keys_at_all_are_left_to_torch():
    rows = some_rows(1, 3, 1.0)
    queries, keys, _ = heads(torch.float32, 3, 1, 0, 2, 2, 8)
    assert not CompiledAttention().fits(queries, keys, rows, None, paid=True)


def test_nothing_is_read_behind_the_end_of_a_tensor():
    """Keys, values, queries and rows end where memory ends: whoever reads on is killed."""
    needs_compiled()
    dtypes = [name for name in ("float32", "bfloat16") if why_not_compiled(getattr(torch, name)) is None]
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_EDGE, *dtypes], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    assert done.stdout.split() == ["all", "right"]


AT_THE_EDGE = """
import ctypes, mmap, sys
import torch
from freshkv.core.rows import RowSet
from freshkv.models.compiled import CompiledAttention, CompiledLayout

held = []

def at_the_edge(tensor):
    size = tensor.nbytes
    pages = -(-size // mmap.PAGESIZE) + 1
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE)
    held.append(memory)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    end = (pages - 1) * mmap.PAGESIZE
    forbidden = ctypes.c_void_p(whole.data_ptr() + end)
    assert ctypes.CDLL(None).mprotect(forbidden, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    placed = whole[end - size : end].view(tensor.dtype).view(tensor.shape)
    placed.copy_(tensor)
    return placed

for dtype in (getattr(torch, name) for name in sys.argv[1:]):
    for seq in (1, 15, 16, 17, 33, 70):
        for width in (6, 32):
            rows = RowSet.of(torch.ones(1, seq, dtype=torch.bool))
            q, k, v = (at_the_edge(torch.randn(shape).to(dtype)) for shape in
                       ((seq, 2, width), (2, 1, seq, width), (2, 1, seq, width)))
            CompiledAttention().attend(q, k, v, rows, None, paid=True)
            CompiledAttention().weigh(q, k, at_the_edge(torch.rand(seq)), rows, None)
            layout = CompiledLayout.of(torch.randn(40, width).to(dtype), None)
            layout.multiply(at_the_edge(torch.randn(seq, width).to(dtype)))
print("all right")
"""


def test_a_model_that_was_prepacked_so_has_it_and_others_have_not():
    needs_compiled()
    assert freshkv.load("tiny-llada").few_rows_attention is None
    assert freshkv.load("tiny-llada", prepacked=True).few_rows_attention is None
    assert isinstance(freshkv.load("tiny-llada", prepacked="compiled").few_rows_attention, CompiledAttention)


def test_signals_of_a_whole_pass_are_those_of_a_plain_model():
    """What keys receive and the rollout, with padding, on both paths of the engine."""
    needs_compiled()
    plain, packed = (freshkv.load("tiny-llada", prepacked=choice) for choice in (False, "compiled"))
    valid = torch.tensor([[False] * 5 + [True] * 25, [True] * 30])
    tokens = torch.randint(14, (2, 30), generator=torch.Generator().manual_seed(0))
    engines = [Engine(network, valid, keep_paid=True, keep_rollout=True) for network in (plain, packed)]
    for share in (1.0, 0.4):
        rows = some_rows(2, 30, share)
        results = [engine.narrow(tokens, rows).hidden[valid[rows.mask]] for engine in engines]
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(*(engine.rollout() for engine in engines), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(*(engine.attention_received(valid) for engine in engines), rtol=1e-4, atol=1e-5)
