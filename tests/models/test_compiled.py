"""Compiled products and what happens to rows between them equal what torch computes, whatever else is computed."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import freshkv
from freshkv.core.errors import InputError
from freshkv.models.compiled import CompiledLayout, compiler, rowwise_for
from freshkv.models.compiled.kernel import kernel_for
from freshkv.models.layers import RMSNorm, Rotary, rotate
from freshkv.models.prepacked import prepack
from tests.models.families import VARIANTS, make
from tests.models.layouts import LAYOUTS, needs_compiled

DTYPES = (torch.float32, torch.bfloat16)

#: of the largest product, against float64
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-8}

#: beyond what goes through a panel together, and beyond a part of the inner axis, with rests
COUNTS, INNERS = st.integers(1, 600), st.integers(1, 1300)


def random(*shape, dtype, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@example(count=257, inner=513, outputs=70, bias=True)
@example(count=15, inner=1, outputs=1, bias=False)
@given(count=COUNTS, inner=INNERS, outputs=st.integers(1, 100), bias=st.booleans())
def test_a_product_is_that_of_float64_but_for_rounding(dtype, count, inner, outputs, bias):
    needs_compiled(dtype=dtype)
    rows, weight = random(count, inner, dtype=dtype), random(outputs, inner, dtype=dtype, seed=1)
    added = random(outputs, dtype=dtype, seed=2) if bias else None
    layout = CompiledLayout.of(weight, added)
    exact = F.linear(rows.double(), weight.double(), None if added is None else added.double())
    near = ROUNDING[dtype] * exact.abs().max().item()
    torch.testing.assert_close(layout.multiply(rows).double(), exact, rtol=0, atol=max(near, 1e-6))
    assert torch.equal(layout.weight(), weight)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(count=COUNTS, inner=INNERS, seed=st.integers(0, 100))
def test_a_row_does_not_depend_on_its_neighbours_by_a_single_bit(dtype, count, inner, seed):
    needs_compiled(dtype=dtype)
    rows = random(count, inner, dtype=dtype)
    layout = CompiledLayout.of(random(33, inner, dtype=dtype, seed=1), random(33, dtype=dtype, seed=2))
    chosen = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.3
    every = layout.multiply(rows)
    assert torch.equal(layout.multiply(rows[chosen]), every[chosen])
    assert torch.equal(layout.multiply(rows[-1:]), every[-1:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_may_lie_anywhere(dtype):
    needs_compiled(dtype=dtype)
    wide = random(40, 90, dtype=dtype)
    layout = CompiledLayout.of(random(48, 30, dtype=dtype, seed=1), None)
    for rows in (wide[:, 7:37], wide[::3, :30], wide.t()[:50, :30], wide[:1, :30].expand(5, -1)):
        assert torch.equal(layout.multiply(rows), layout.multiply(rows.contiguous()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_no_number_stays_in_its_row(dtype):
    needs_compiled(dtype=dtype)
    rows = random(20, 40, dtype=dtype)
    layout = CompiledLayout.of(random(32, 40, dtype=dtype, seed=1), None)
    expected = layout.multiply(rows)
    rows[3, 5], rows[7, 0] = torch.nan, torch.inf
    found = layout.multiply(rows)
    assert found[3].isnan().all()
    assert not found[7].isfinite().any()
    others = torch.tensor([row not in (3, 7) for row in range(20)])
    assert torch.equal(found[others], expected[others])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(count=st.integers(0, 70), width=st.integers(1, 300), seed=st.integers(0, 3))
def test_what_happens_between_products_is_what_torch_computes(dtype, count, width, seed):
    needs_compiled()
    rowwise, half = rowwise_for(dtype), 2 * (width // 2 + 1)
    norm = RMSNorm(width, 1e-5).to(dtype)
    norm.weight.data.copy_(random(width, dtype=dtype, seed=seed))
    rows, both = random(count, width, dtype=dtype), 4 * random(count, 2 * width, dtype=dtype, seed=1)
    heads, tables = random(count, 3, half, dtype=dtype), Rotary(half, 10000.0)(torch.arange(count), dtype)
    opened, raised = torch.split(both.float(), width, dim=1)
    near = {"rtol": 1e-5 if dtype == torch.float32 else 2**-7, "atol": 1e-5}
    torch.testing.assert_close(rowwise.norm(rows, norm.weight, 1e-5), norm(rows).detach(), **near)
    torch.testing.assert_close(rowwise.gate(both), (F.silu(opened) * raised).to(dtype), **near)
    torch.testing.assert_close(rowwise.rotate(heads, *tables), rotate(heads, tables), rtol=near["rtol"], atol=2e-2)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gate_is_right_for_every_size_of_number(dtype):
    needs_compiled()
    sizes = torch.tensor([0.0, 1e-30, 1e-3, 1.0, 20.0, 80.0, 100.0, 1e4, 1e30])
    opened = torch.cat((sizes, -sizes, torch.tensor([torch.nan, torch.inf]))).to(dtype)
    gated = rowwise_for(dtype).gate(torch.stack((opened, torch.ones_like(opened)), dim=1))[:, 0]
    near = 2e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(gated, F.silu(opened.float()).to(dtype), rtol=near, atol=1e-30, equal_nan=True)


def test_a_norm_of_parts_of_a_row_and_a_rotation_of_part_of_a_head_are_right():
    needs_compiled()
    heads = random(5, 4, 16, dtype=torch.float32)
    norm = RMSNorm(16, 1e-5)
    expected = norm(heads[:, 1:3]).detach()
    norm.compiled = True
    torch.testing.assert_close(norm(heads[:, 1:3]), expected)
    tables = Rotary(8, 10000.0)(torch.arange(5), torch.float32)
    torch.testing.assert_close(rotate(heads, tables, compiled=True), rotate(heads, tables))


def test_a_prepacked_model_can_be_copied_and_sent():
    needs_compiled()
    network = make("qwen3")
    prepack(network, "compiled")
    rows = random(4, network.network_spec.width, dtype=network.dtype)
    expected = network.feed_forward(0, rows)
    for other in (copy.deepcopy(network.layers[0]), pickle.loads(pickle.dumps(network.layers[0]))):
        assert torch.equal(other.feed_forward(rows), expected)


def test_rows_of_another_shape_or_dtype_are_refused():
    needs_compiled()
    layout = CompiledLayout.of(torch.ones(8, 6), None)
    for rows in (torch.ones(3, 5), torch.ones(6), torch.ones(3, 6).double()):
        with pytest.raises(InputError, match=r"takes rows \[n, 6\] of torch.float32, not"):
            layout.multiply(rows)


def test_whoever_needs_a_gradient_is_told_that_there_is_none():
    needs_compiled()
    network = make("qwen3")
    network.requires_grad_(False)
    prepack(network, "compiled")
    hidden = torch.randn(5, network.network_spec.width, dtype=network.dtype, requires_grad=True)
    with pytest.raises(InputError, match=r"has no gradient. Use torch.no_grad\(\), or load without"):
        network.feed_forward(0, hidden)
    with torch.no_grad():
        network.feed_forward(0, hidden)
    norm = network.final_norm  # one by itself is torch's own where a gradient is needed
    norm(hidden).sum().backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_plain_forward_pass_is_right_for_every_family(variant, layout):
    needs_compiled(layout)
    network = make(variant)
    packed = copy.deepcopy(network)
    prepack(packed, layout)
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = network(tokens).logits, packed(tokens).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_a_weight_from_a_processor_of_another_kind_is_refused(monkeypatch):
    """As after it was sent: there the panels are half as wide."""
    needs_compiled()
    layout = CompiledLayout.of(torch.ones(64, 8), None)
    other = evolve(kernel_for(torch.float32), panel_width=kernel_for(torch.float32).panel_width // 2)
    monkeypatch.setattr("freshkv.models.compiled.layout.kernel_for", lambda dtype: other)
    with pytest.raises(InputError, match=r"laid out \d+ outputs wide on another processor; this one needs \d+"):
        layout.multiply(torch.ones(3, 8))


def test_a_norm_and_tables_of_another_width_are_refused():
    needs_compiled()
    rowwise = rowwise_for(torch.float32)
    with pytest.raises(InputError, match=r"A norm's weight is torch.float32 \[4\]; expected torch.float32 \[6\]"):
        rowwise.norm(torch.ones(2, 6), torch.ones(4), 1e-5)
    with pytest.raises(InputError, match=r"A rotary table is torch.float32 \[2, 4\]; expected torch.float32 \[2, 6\]"):
        rowwise.rotate(torch.ones(2, 3, 6), torch.ones(2, 4), torch.ones(2, 4))


@pytest.fixture
def forgetful():
    """Compile anew, now and afterwards."""
    caches = (compiler.compiled, kernel_for, rowwise_for)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_without_a_compiler_it_says_what_to_do(monkeypatch, forgetful):
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler .* none of c\+\+, g\+\+, clang\+\+ is installed"):
        freshkv.load("tiny-llada", prepacked="compiled")


def test_what_the_compiler_says_is_passed_on(monkeypatch, forgetful):
    needs_compiled()
    compiler.compiled.cache_clear()
    kernel_for.cache_clear()
    monkeypatch.setattr(compiler, "COMPILE", ("-c", "--no-such-option"))
    with pytest.raises(InputError, match=r"could not compile float32.cpp:\n.*no-such-option"):
        freshkv.load("tiny-llada", prepacked="compiled")


def test_a_library_that_cannot_be_loaded_is_refused(monkeypatch, forgetful):
    needs_compiled()
    compiler.compiled.cache_clear()
    kernel_for.cache_clear()
    monkeypatch.setattr(compiler, "LINK", ("-r",))  # an object file, no library
    with pytest.raises(InputError, match=r"made of float32.cpp cannot be loaded"):
        freshkv.load("tiny-llada", prepacked="compiled")


def test_a_processor_without_the_tile_unit_is_refused(monkeypatch, forgetful):
    """As on a machine whose compiler is told of no such unit."""
    needs_compiled()
    monkeypatch.setattr(compiler, "COMPILE", tuple(flag for flag in compiler.COMPILE if flag != "-march=native"))
    with pytest.raises(InputError, match=r"for bfloat16 an x86 processor with AMX, on Linux; this processor, its"):
        freshkv.load("tiny-llada", prepacked="compiled", dtype="bfloat16")
    # float32 needs none
    linear = nn.Linear(40, 50, bias=False)
    rows = random(37, 40, dtype=torch.float32)
    product = CompiledLayout.of(linear.weight, None).multiply(rows)
    torch.testing.assert_close(product, linear(rows).detach())
