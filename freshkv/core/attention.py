"""Queries of some rows against the keys of all visible rows, always through a fused kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from freshkv.core.rows import RowSet


def fold_heads(queries: Tensor, kv_heads: int) -> Tensor:
    """[batch, rows, heads, head_width] to [batch, kv_heads, group * rows, head_width].

    The mask of a query never depends on its row, so that the query heads that share a key head can be folded into the
    row axis: grouped-query attention without repeating keys, in any kernel.
    """
    batch, rows, heads, width = queries.shape
    grouped = queries.view(batch, rows, kv_heads, heads // kv_heads, width)
    return grouped.permute(0, 2, 3, 1, 4).reshape(batch, kv_heads, (heads // kv_heads) * rows, width)


def unfold_heads(attended: Tensor, heads: int) -> Tensor:
    """The inverse of ``fold_heads``: [batch, kv_heads, group * rows, width] to [batch, rows, heads, width]."""
    batch, kv_heads, folded, width = attended.shape
    group = heads // kv_heads
    grouped = attended.view(batch, kv_heads, group, folded // group, width)
    return grouped.permute(0, 3, 1, 2, 4).reshape(batch, folded // group, heads, width)


def attend(queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """What each row's query gathers.

    ``queries`` [rows, heads, head_width], packed; ``keys`` and ``values`` [batch, seq, kv_heads, head_width];
    ``visible`` bool [batch, seq], or None when every key may be attended. Returns [rows, heads, head_width].
    """
    heads, kv_heads = queries.shape[1], keys.shape[2]
    folded = fold_heads(rows.rectangular(queries), kv_heads)
    mask = None if visible is None else visible[:, None, None, :].expand(-1, -1, folded.shape[2], -1)
    attended = functional.scaled_dot_product_attention(
        folded, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
    )
    return rows.packed(unfold_heads(attended, heads))


def weighted_attention(
    queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None, chunk: int = 1 << 24
) -> Tensor:
    """Sum over rows of ``weights`` [rows] times their head-mean attention: float32 [batch, seq].

    A vector-matrix product: at most about ``chunk`` attention probabilities exist at a time.
    """
    batch, seq, kv_heads, width = keys.shape
    rectangle = rows.rectangular(queries)
    # the repetitions of shorter sequences must weigh nothing
    placed = weights.new_zeros(batch * rows.widest)
    places = torch.arange(batch * rows.widest, device=weights.device) if rows.answers is None else rows.answers
    weight = placed.index_copy(0, places, weights).view(batch, rows.widest)
    heads = rectangle.shape[2]
    transposed = keys.permute(0, 2, 3, 1)  # [batch, kv_heads, head_width, seq]
    total = weights.new_zeros(batch, seq)
    step = max(1, chunk // (batch * heads * seq))
    for start in range(0, rows.widest, step):
        part = fold_heads(rectangle[:, start : start + step], kv_heads)
        scores = (part @ transposed).float() * width**-0.5
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None, None, :], float("-inf"))
        share = weight[:, start : start + step].repeat(1, heads // kv_heads)[:, None, None, :] / heads
        total = total + (share @ scores.softmax(dim=-1)).sum(dim=(1, 2))
    return total
