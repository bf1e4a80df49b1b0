"""The shared pieces against their definitions, in every dtype."""

import pytest
import torch
from torch import nn

from freshkv.models.layers import RMSNorm, Rotary, attention, gated, rotate

PRECISION = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1000.0])
def test_norm_rounds_only_once(dtype, scale):
    norm = RMSNorm(64, eps=1e-6).to(dtype)
    nn.init.normal_(norm.weight, mean=1.0)
    hidden = (torch.randn(16, 64) * scale).to(dtype)  # squares of 1000s are beyond float16
    exact = hidden.double() / (hidden.double().square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.weight.double()
    torch.testing.assert_close(norm(hidden).double(), exact, rtol=PRECISION[dtype], atol=PRECISION[dtype] * 1e-3)
    assert norm(hidden).dtype == dtype


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
def test_rotation_is_that_of_complex_numbers(dtype):
    positions = torch.tensor([0, 1, 17])
    heads = torch.randn(3, 2, 8).to(dtype)
    rotated = rotate(heads, Rotary(8, theta=100.0)(positions, dtype))
    angles = positions.double()[:, None] * 100.0 ** (-torch.arange(4, dtype=torch.float64) / 4)
    turned = torch.complex(*heads.double().chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)[:, None]
    exact = torch.cat((turned.real, turned.imag), dim=-1)
    torch.testing.assert_close(rotated.double(), exact, rtol=PRECISION[dtype], atol=10 * PRECISION[dtype])
    assert rotated.dtype == dtype
    assert torch.equal(rotated[0], heads[0])


def test_scores_depend_on_distance_alone():
    rotary, (query, key) = Rotary(16, theta=10000.0), torch.randn(2, 1, 1, 16, dtype=torch.float64)

    def score(query_position, key_position):
        at = (torch.tensor([position]) for position in (query_position, key_position))
        turned = [
            rotate(head, rotary(position, torch.float64)) for head, position in zip((query, key), at, strict=True)
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(3, 10) == pytest.approx(score(503, 510), rel=1e-9)


def test_inverse_frequencies_are_made_once():
    rotary = Rotary(8, theta=100.0)
    rotary(torch.arange(3), torch.bfloat16)
    (kept,) = rotary._frequencies.values()
    rotary(torch.arange(5), torch.float32)
    assert [table is kept for table in rotary._frequencies.values()] == [True]


def test_gated_feed_forward_follows_its_definition():
    gate, up, down = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)
    hidden = torch.randn(5, 4)
    expected = down(gate(hidden) * torch.sigmoid(gate(hidden)) * up(hidden))
    torch.testing.assert_close(gated(hidden, gate, up, down), expected)


def test_masked_keys_are_not_attended_to():
    queries, keys, values = torch.randn(1, 3, 4, 8), torch.randn(1, 3, 2, 8), torch.randn(1, 3, 2, 8)
    visible = torch.tensor([[True, False, True]])
    expected = attention(queries, keys[:, [0, 2]], values[:, [0, 2]], None)
    torch.testing.assert_close(attention(queries, keys, values, visible), expected)
