"""What a pass keeps of its attention, and in which form."""

from __future__ import annotations

import pytest
import torch

from freshkv.core.attention import attend, attention_of
from freshkv.core.kept_attention import AttentionOfPass
from freshkv.core.rows import RowSet

HEADS, KV_HEADS, WIDTH, SEQ = 4, 2, 8, 12


def drawn(rows: RowSet, batch: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, which are a part of something larger, keys and values."""
    generator = torch.Generator().manual_seed(rows.count)
    whole = torch.randn(rows.count, HEADS + KV_HEADS, WIDTH, generator=generator).to(dtype)
    pair = torch.randn(2, KV_HEADS, batch, SEQ, WIDTH, generator=generator).to(dtype)
    return whole[:, :HEADS], pair[0], pair[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("hides", [False, True])
def test_attention_in_the_open_is_that_of_the_fused_kernel(dtype, tolerance, hides):
    mask = torch.rand(3, SEQ, generator=torch.Generator().manual_seed(1)) < 0.4
    mask[:, 0] = True
    rows = RowSet.of(mask)
    visible = (torch.rand(3, SEQ, generator=torch.Generator().manual_seed(2)) < 0.7) | mask if hides else None
    queries, keys, values = drawn(rows, 3, dtype)
    attention = AttentionOfPass(queries=False, paid=True)
    opened = attention.attend(queries, keys, values, rows, visible)
    assert opened.dtype == dtype
    torch.testing.assert_close(opened, attend(queries, keys, values, rows, visible), rtol=tolerance, atol=tolerance)
    (kept,) = attention.layers
    expected = attention_of(queries.float(), keys.float(), rows, visible).mean(dim=1)
    torch.testing.assert_close(kept.paid, expected, rtol=1e-4, atol=1e-5)


def test_what_is_no_number_in_one_sequence_does_not_reach_the_others():
    rows = RowSet.of(torch.tensor([[True, True, False] * 4, [True, False, False] * 4, [False, True, True] * 4]))
    attention = AttentionOfPass(queries=False, paid=True)
    queries, keys, values = drawn(rows, 3, torch.float32)
    keys[:, 1] = float("nan")
    attention.attend(queries, keys, values, rows, None)
    received = attention.layers[0].received(torch.ones(rows.count), keys, None)
    assert received[1].isnan().all()
    torch.testing.assert_close(received[[0, 2]].sum(dim=1), torch.tensor([8.0, 8.0]))
