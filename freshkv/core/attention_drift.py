"""Whether the attention to the most-attended key has moved since the step before, layer by layer."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.attention import fold_heads
from freshkv.core.rows import RowSet


@frozen(eq=False)
class _Remembered:
    key: Tensor  #: long [batch]; the most-attended key
    paid: Tensor  #: float32 [batch, seq]; what each row paid to it, NaN where the row was not refreshed


class AttentionDrift:
    """Watches head-mean attention in the layers of consecutive passes (Elastic-Cache, arXiv:2510.14973, section 3)."""

    def __init__(self, layers: int) -> None:
        self._layers: list[_Remembered | None] = [None] * layers

    def update(
        self, layer: int, queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None, is_valid: Tensor
    ) -> Tensor:
        """1 - cosine of what the rows pay to the last pass's most-attended key, now and then: float32 [batch].

        Over the rows refreshed in this layer in both passes, padding (where ``is_valid``, bool [batch, seq], is False)
        left out; NaN in the first pass and where there is no such row.
        """
        batch, seq = keys.shape[:2]
        attention = _mean_attention(queries, keys, rows, visible)  # [batch, widest, seq]
        paid = torch.full((batch, seq, seq), torch.nan, device=keys.device).flatten(0, 1)
        rows.put(paid, rows.packed(attention))
        # padding pays nothing, or else a sequence would depend on how far it is padded
        paid = paid.view(batch, seq, seq).masked_fill(~is_valid[:, :, None], torch.nan)
        before = self._layers[layer]
        drift = torch.full((batch,), torch.nan, device=keys.device)
        if before is not None:
            now = _column(paid, before.key)
            both = ~(now.isnan() | before.paid.isnan())
            new, old = now.masked_fill(~both, 0.0), before.paid.masked_fill(~both, 0.0)
            cosine = torch.cosine_similarity(new, old, dim=1)
            drift = torch.where(both.any(dim=1), 1 - cosine, torch.nan)
        key = paid.nan_to_num(nan=0.0).sum(dim=1).argmax(dim=1)
        self._layers[layer] = _Remembered(key, _column(paid, key))
        return drift

    def keep(self, index: Tensor) -> None:
        """Forget all sequences but these, long [kept]."""
        self._layers = [
            None if known is None else _Remembered(known.key[index], known.paid[index]) for known in self._layers
        ]


def _mean_attention(queries: Tensor, keys: Tensor, rows: RowSet, visible: Tensor | None) -> Tensor:
    """Head-mean attention probabilities, float32 [batch, widest, seq]."""
    rectangle = rows.rectangular(queries)
    batch, widest, heads, width = rectangle.shape
    scores = (fold_heads(rectangle, keys.shape[2]) @ keys.permute(0, 2, 3, 1)).float() * width**-0.5
    if visible is not None:
        scores = scores.masked_fill(~visible[:, None, None, :], float("-inf"))
    probabilities: Tensor = scores.softmax(dim=-1)
    return probabilities.reshape(batch, heads, widest, -1).mean(dim=1)


def _column(paid: Tensor, key: Tensor) -> Tensor:
    """What each row pays to ``key``, long [batch]: [batch, seq] of [batch, seq, seq]."""
    return paid.gather(2, key[:, None, None].expand(-1, paid.shape[1], 1))[:, :, 0]
