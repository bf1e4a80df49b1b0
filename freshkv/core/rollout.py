"""Attention rollout as a signal: how much each row flows into the final states, per sequence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from freshkv.core.division import UNDIVIDED, Division
from freshkv.core.kept_attention import KeptAttention
from freshkv.core.store import RowStore
from freshkv.core.visible import VisibleKeys


def attention_rollout(
    store: RowStore,
    attention: Sequence[KeptAttention],
    is_valid: Tensor,
    seen: Sequence[VisibleKeys],
    division: Division = UNDIVIDED,
    real: Tensor | None = None,
) -> Tensor:
    """Column sums of the product of rownorm(A + I) over layers, last first: float32 [batch, seq].

    ``attention`` holds that of the refreshed rows of each layer. A is their head-mean attention and the identity
    elsewhere; a row of it sums to one, so that normalising halves it. Computed as a row vector times matrices, from
    the last layer down. Padding carries nothing. ``seen`` holds, for each layer, the keys that may be attended to;
    ``division`` says which heads the attention is of. ``real``, bool [rows], is false where the rows of all layers
    repeat another one.
    """
    importance = is_valid.float()
    for layer in reversed(range(len(attention))):
        rows = attention[layer].rows
        if rows.count == 0:
            continue
        flat = importance.flatten()
        weights = rows.take(flat).clone()
        keys, _ = store.attended(layer, seen[layer])
        own = weights if real is None else weights * real
        received = division.mean(attention[layer].received(own, keys, seen[layer].mask))
        spread = seen[layer].spread(received, is_valid.shape[1])
        kept = flat.clone()
        rows.put(kept, weights / 2)
        importance = kept.view_as(importance) + spread / 2
    return importance
