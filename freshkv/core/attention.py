"""Queries of some rows against the keys of all visible rows.

Keys and values come head by head, [kv_heads, batch, seq, head_width], as the store holds them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from freshkv.core.rows import RowSet

#: attention probabilities that exist at a time where they are weighed: 2 MiB of float32, or 8 where launching costs
MOST_ON_CPU, MOST_ELSEWHERE = 1 << 19, 1 << 21


def fold_heads(queries: Tensor, kv_heads: int) -> Tensor:
    """[batch, rows, heads, head_width] to [kv_heads, batch, group * rows, head_width].

    The mask of a query never depends on its head, so that the query heads that share a key head can be folded into the
    row axis: grouped-query attention without repeating keys, in any kernel.
    """
    batch, rows, heads, width = queries.shape
    grouped = queries.view(batch, rows, kv_heads, heads // kv_heads, width)
    return grouped.permute(2, 0, 3, 1, 4).reshape(kv_heads, batch, (heads // kv_heads) * rows, width)


def unfold_heads(attended: Tensor, heads: int) -> Tensor:
    """The inverse of ``fold_heads``: [kv_heads, batch, group * rows, width] to [batch, rows, heads, width]."""
    kv_heads, batch, folded, width = attended.shape
    group = heads // kv_heads
    grouped = attended.view(kv_heads, batch, group, folded // group, width)
    return grouped.permute(1, 3, 0, 2, 4).reshape(batch, folded // group, heads, width)


def over_queries(visible: Tensor, queries: int, group: int) -> Tensor:
    """``visible``, bool [batch, seq] or [batch, widest, seq], for folded heads: [1, batch, queries, seq].

    ``queries`` counts folded rows, ``group`` query heads that share a key head.
    """
    if visible.ndim == 2:
        return visible[None, :, None, :].expand(-1, -1, queries, -1)
    return visible.repeat(1, group, 1)[None]


def attend_folded(folded: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """A fused kernel over folded heads: [kv_heads, batch, group * rows, head_width], as ``folded``.

    ``mask`` is bool [1, batch, group * rows, seq], or None when every key may be attended to.
    """
    seen = None if mask is None else mask.transpose(0, 1)
    attended = functional.scaled_dot_product_attention(
        folded.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1), attn_mask=seen
    )
    return attended.transpose(0, 1)


def attend(queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """What each row's query gathers.

    ``queries`` [rows, heads, head_width], packed; ``keys`` and ``values`` [kv_heads, batch, seq, head_width];
    ``visible`` bool [batch, seq], [batch, widest, seq] where rows see different keys, or None when every key may be
    attended. Returns [rows, heads, head_width].
    """
    heads, kv_heads = queries.shape[1], keys.shape[0]
    folded = fold_heads(rows.rectangular(queries), kv_heads)
    mask = None if visible is None else over_queries(visible, folded.shape[2], heads // kv_heads)
    return rows.packed(unfold_heads(attend_folded(folded, keys, values, mask), heads))


def attend_openly(
    queries: Tensor, keys: Tensor, values: Tensor, rows: RowSet, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same in steps, and the mean over heads of what each row pays: float32 [rows, seq]. For few rows.

    As exact as a fused kernel: scores and softmax are at least float32, probabilities are rounded to meet the values.
    """
    heads, kv_heads = queries.shape[1], keys.shape[0]
    paid = _paid(queries, keys, rows, visible)
    attended = rows.packed(unfold_heads(paid.to(values.dtype) @ values, heads))
    by_row = torch.unflatten(paid, 2, (heads // kv_heads, rows.widest))
    return attended, rows.packed(by_row.mean(dim=(0, 2), dtype=torch.float32))


def attention_of(queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """Attention probabilities, float32 [rows, heads, seq]; for few rows. Arguments as in ``attend``."""
    return rows.packed(unfold_heads(_paid(queries, keys, rows, visible), queries.shape[1])).float()


def _paid(queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """Probabilities for folded heads, at least float32 [kv_heads, batch, group * rows, seq]."""
    kv_heads, heads, width = keys.shape[0], *queries.shape[1:]
    exact = torch.promote_types(queries.dtype, torch.float32)
    # scaled before the product: a row of queries is shorter than a row of scores
    folded = fold_heads(rows.rectangular(queries.to(exact) * width**-0.5), kv_heads)
    return _probabilities(folded, keys.to(exact).transpose(2, 3), visible, heads // kv_heads)


def _probabilities(
    folded: Tensor, transposed: Tensor, visible: Tensor | None, group: int, dtype: torch.dtype | None = None
) -> Tensor:
    """Of scaled queries and of keys [kv_heads, batch, head_width, seq]; ``dtype`` None: as those are."""
    scores = folded @ transposed
    if visible is not None:
        scores = scores.masked_fill(~over_queries(visible, scores.shape[2], group), float("-inf"))
    return scores.softmax(dim=-1, dtype=dtype)


def weighted_scores(queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """Sum over rows of ``weights`` [rows] times their head-mean query-key products: float32 [batch, seq].

    Scaled as for the softmax, which is not taken; 0 where a key is not visible. Arguments as in ``attend``.
    """
    kv_heads, batch, _, width = keys.shape
    heads = queries.shape[1]
    if visible is not None and visible.ndim == 3:
        return _weighted_scores_by_row(queries, keys, weights, rows, visible)
    sequence = rows.flat // rows.mask.shape[1]
    weighted = queries.float() * weights[:, None, None]
    mean = weighted.new_zeros(batch, heads, width).index_add(0, sequence, weighted)
    by_key_head = mean.view(batch, kv_heads, heads // kv_heads, width).sum(dim=2) / heads
    scores: Tensor = torch.einsum("bkw,kbsw->bs", by_key_head, keys.float()) * width**-0.5
    return scores if visible is None else scores.masked_fill(~visible, 0.0)


def _weighted_scores_by_row(queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor) -> Tensor:
    """The same where each row has a mask of its own."""
    heads, kv_heads, width = queries.shape[1], keys.shape[0], keys.shape[-1]
    grouped = torch.unflatten(rows.rectangular(queries.float()), 2, (kv_heads, heads // kv_heads)).sum(dim=3) / heads
    scores = torch.einsum("brkw,kbsw->brs", grouped, keys.float()).masked_fill(~visible, 0.0) * width**-0.5
    sequence = rows.flat // rows.mask.shape[1]
    weighted = rows.packed(scores) * weights[:, None]
    return weighted.new_zeros(keys.shape[1:3]).index_add(0, sequence, weighted)


def weighted_attention(
    queries: Tensor, keys: Tensor, weights: Tensor, rows: RowSet, visible: Tensor | None, chunk: int | None = None
) -> Tensor:
    """Sum over rows of ``weights`` [rows] times their head-mean attention: float32 [batch, seq].

    A vector-matrix product: at most about ``chunk`` attention probabilities exist at a time, None: as many as the
    device is good at.
    """
    chunk = (MOST_ON_CPU if queries.device.type == "cpu" else MOST_ELSEWHERE) if chunk is None else chunk
    kv_heads, batch, seq, _ = keys.shape
    heads = queries.shape[1]
    rectangle, weight = rows.rectangular(queries), _placed(weights, rows, batch) / heads
    total = weights.new_zeros(batch, seq)
    step = max(1, chunk // (batch * heads * seq))
    for start in range(0, rows.widest, step):
        part = slice(start, start + step)
        mask = None if visible is None else visible if visible.ndim == 2 else visible[:, part]
        # every head weighs a row alike: [batch, 1, group * rows]
        share = weight[:, part].repeat(1, heads // kv_heads)[:, None]
        total += torch.bmm(share, _paid_by_heads(rectangle[:, part], keys, mask))[:, 0]
    return total


def _paid_by_heads(queries: Tensor, keys: Tensor, visible: Tensor | None) -> Tensor:
    """What [batch, rows, heads, head_width] pay, key heads added up: float32 [batch, group * rows, seq]."""
    kv_heads, heads, width = keys.shape[0], *queries.shape[2:]
    folded = fold_heads(queries * width**-0.5, kv_heads)
    paid = _probabilities(folded, keys.transpose(2, 3), visible, heads // kv_heads, torch.float32)
    return paid.sum(dim=0)


def _placed(weights: Tensor, rows: RowSet, batch: int) -> Tensor:
    """``weights`` [rows] as [batch, widest]; the repetitions of shorter sequences weigh nothing."""
    if rows.answers is None:
        return weights.view(batch, rows.widest)
    return weights.new_zeros(batch * rows.widest).index_copy(0, rows.answers, weights).view(batch, rows.widest)
