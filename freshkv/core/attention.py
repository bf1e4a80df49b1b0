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


def over_queries(visible: Tensor, queries: int, group: int) -> Tensor:
    """``visible``, bool [batch, seq] or [batch, widest, seq], for folded heads: [batch, 1, queries, seq].

    ``queries`` counts folded rows, ``group`` query heads that share a key head.
    """
    if visible.ndim == 2:
        return visible[:, None, None, :].expand(-1, -1, queries, -1)
    return visible.repeat(1, group, 1)[:, None]


def attend(queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """What each row's query gathers.

    ``queries`` [rows, heads, head_width], packed; ``keys`` and ``values`` [batch, seq, kv_heads, head_width];
    ``visible`` bool [batch, seq], [batch, widest, seq] where rows see different keys, or None when every key may be
    attended. Returns [rows, heads, head_width].
    """
    heads, kv_heads = queries.shape[1], keys.shape[2]
    folded = fold_heads(rows.rectangular(queries), kv_heads)
    mask = None if visible is None else over_queries(visible, folded.shape[2], heads // kv_heads)
    attended = functional.scaled_dot_product_attention(
        folded, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=mask
    )
    return rows.packed(unfold_heads(attended, heads))


def attention_of(queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """Attention probabilities, float32 [rows, heads, seq]; for few rows. Arguments as in ``attend``."""
    kv_heads, width, heads = *keys.shape[2:], queries.shape[1]
    scores = (fold_heads(rows.rectangular(queries), kv_heads) @ keys.permute(0, 2, 3, 1)).float() * width**-0.5
    if visible is not None:
        scores = scores.masked_fill(~over_queries(visible, scores.shape[2], heads // kv_heads), float("-inf"))
    return rows.packed(unfold_heads(scores.softmax(dim=-1), heads))


def weighted_scores(queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """Sum over rows of ``weights`` [rows] times their head-mean query-key products: float32 [batch, seq].

    Scaled as for the softmax, which is not taken; 0 where a key is not visible. Arguments as in ``attend``.
    """
    batch, _, kv_heads, width = keys.shape
    heads = queries.shape[1]
    if visible is not None and visible.ndim == 3:
        return _weighted_scores_by_row(queries, keys, weights, rows, visible)
    sequence = rows.flat // rows.mask.shape[1]
    weighted = queries.float() * weights[:, None, None]
    mean = weighted.new_zeros(batch, heads, width).index_add(0, sequence, weighted)
    by_key_head = mean.view(batch, kv_heads, heads // kv_heads, width).sum(dim=2) / heads
    scores: Tensor = torch.einsum("bkw,bskw->bs", by_key_head, keys.float()) * width**-0.5
    return scores if visible is None else scores.masked_fill(~visible, 0.0)


def _weighted_scores_by_row(queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor) -> Tensor:
    """The same where each row has a mask of its own."""
    heads, kv_heads, width = queries.shape[1], *keys.shape[2:]
    grouped = torch.unflatten(rows.rectangular(queries.float()), 2, (kv_heads, heads // kv_heads)).sum(dim=3) / heads
    scores = torch.einsum("brkw,bskw->brs", grouped, keys.float()).masked_fill(~visible, 0.0) * width**-0.5
    sequence = rows.flat // rows.mask.shape[1]
    weighted = rows.packed(scores) * weights[:, None]
    return weighted.new_zeros(keys.shape[:2]).index_add(0, sequence, weighted)


def weighted_attention(
    queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None, chunk: int = 1 << 21
) -> Tensor:
    """Sum over rows of ``weights`` [rows] times their head-mean attention: float32 [batch, seq].

    A vector-matrix product: at most about ``chunk`` attention probabilities exist at a time.
    """
    batch, seq, _, width = keys.shape
    heads = queries.shape[1]
    # scaled before the product: a row of queries is shorter than a row of scores
    rectangle = rows.rectangular(queries * width**-0.5)
    weight = _placed(weights, rows, batch)
    transposed = _by_head(keys).transpose(2, 3)  # [batch, kv_heads, head_width, seq]
    total = weights.new_zeros(batch, seq)
    step = max(1, chunk // (batch * heads * seq))
    for start in range(0, rows.widest, step):
        part = slice(start, start + step)
        mask = None if visible is None else visible if visible.ndim == 2 else visible[:, part]
        total = total + _weighted_part(rectangle[:, part], transposed, weight[:, part] / heads, mask)
    return total


def _weighted_part(queries: Tensor, transposed: Tensor, weight: Tensor, visible: Tensor | None) -> Tensor:
    """Of some rows: ``queries`` [batch, rows, heads, head_width] and ``weight`` [batch, rows], float32 [batch, seq]."""
    batch, _, heads, _ = queries.shape
    kv_heads = transposed.shape[1]
    scores = fold_heads(queries, kv_heads) @ transposed
    if visible is not None:
        mask = over_queries(visible, scores.shape[2], heads // kv_heads)
        scores = scores.masked_fill(~mask, float("-inf"))
    # every head weighs a row alike, so that heads and rows are summed in one product
    paid = scores.softmax(dim=-1, dtype=torch.float32).flatten(1, 2)  # [batch, heads * rows, seq]
    share = weight[:, None].expand(-1, heads, -1).reshape(batch, 1, -1)
    return torch.bmm(share, paid)[:, 0]


def _by_head(keys: Tensor) -> Tensor:
    """[batch, seq, kv_heads, head_width] to [batch, kv_heads, seq, head_width].

    A copy in half precision: the products of the CPU's libraries would otherwise copy in a slower way, several times.
    """
    by_head = keys.transpose(1, 2)
    return by_head if keys.dtype in (torch.float32, torch.float64) else by_head.contiguous()


def _placed(weights: Tensor, rows: RowSet, batch: int) -> Tensor:
    """``weights`` [rows] as [batch, widest]; the repetitions of shorter sequences weigh nothing."""
    if rows.answers is None:
        return weights.view(batch, rows.widest)
    return weights.new_zeros(batch * rows.widest).index_copy(0, rows.answers, weights).view(batch, rows.widest)
