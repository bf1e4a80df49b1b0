"""The order of operands is a matter of speed alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import freshkv
from freshkv.models.products import WORTH, Projection, set_operand_order
from freshkv.testing import tiny_network
from freshkv.testing.networks import NetworkShape
from tests.core.support import any_policy, examples

ORDERS = ["auto", "weight first", "rows first"]
SHAPE = NetworkShape(layers=2, heads=4, kv_heads=2, seed=41)


def twins(inner: int, outer: int, *, bias: bool, dtype: torch.dtype, order: str) -> tuple[nn.Linear, Projection]:
    """A linear layer, and a projection with its weights."""
    torch.manual_seed(0)
    plain = nn.Linear(inner, outer, bias=bias, dtype=dtype).requires_grad_(False)
    projection = Projection(inner, outer, bias=bias, dtype=dtype).requires_grad_(False)
    projection.load_state_dict(plain.state_dict())
    projection.operand_order = order
    return plain, projection


@pytest.mark.parametrize("order", ORDERS)
@examples(30)
@given(
    rows=st.integers(0, 70),
    inner=st.integers(1, 20),
    outer=st.integers(1, 20),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_a_projection_gives_what_linear_gives(order, rows, inner, outer, bias, dtype):
    plain, projection = twins(inner, outer, bias=bias, dtype=dtype, order=order)
    given_rows = torch.randn(rows, inner, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.testing.assert_close(projection(given_rows), plain(given_rows))


@pytest.mark.parametrize("rows", [WORTH[torch.float32], WORTH[torch.float32] + 1])
def test_few_rows_are_multiplied_from_the_left_by_the_weight(rows):
    """Seen by the layout: the result of such a product is stored by columns."""
    _, projection = twins(8, 16, bias=False, dtype=torch.float32, order="auto")
    by_column = projection(torch.ones(rows, 8)).mT.is_contiguous()
    assert by_column == (rows <= WORTH[torch.float32])


def test_training_takes_the_way_of_linear():
    projection = Projection(8, 16)
    rows = torch.ones(4, 8, requires_grad=True)
    projection(rows).sum().backward()
    assert projection(rows).is_contiguous()
    assert projection.weight.grad is not None


def test_more_axes_than_rows_take_the_way_of_linear():
    plain, projection = twins(8, 16, bias=True, dtype=torch.float32, order="weight first")
    batch = torch.randn(2, 3, 8)
    torch.testing.assert_close(projection(batch), plain(batch))


@examples(25)
@given(policy=any_policy(), family=st.sampled_from(["llada", "dream"]))
def test_no_run_depends_on_the_order(policy, family):
    shape = NetworkShape(family=family, layers=2, heads=4, kv_heads=2, seed=41)
    network = tiny_network(shape)
    prompt = torch.randint(0, 30, (2, 6), generator=torch.Generator().manual_seed(3))
    runs = []
    for order in ("weight first", "rows first"):
        set_operand_order(network, order)
        try:
            runs.append(freshkv.generate(network, prompt, policy=policy, gen_length=8, block_length=4))
        finally:
            set_operand_order(network, "auto")
    first, second = runs
    assert torch.equal(first.sequences, second.sequences)
    for one, other in zip(first.trace, second.trace, strict=True):
        assert torch.equal(one.refreshed, other.refreshed)


def test_every_product_of_a_network_can_be_switched():
    network = tiny_network(SHAPE)
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert linear
    assert all(isinstance(module, Projection) for module in linear)
