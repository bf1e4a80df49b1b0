"""Shadow rows: positions predicted once more as if they were masked, to verify what was decided (revocable decoding).

The shadow row of position i is a mask token where i is predicted from, and does not see the canvas's key of i. Shadow
rows see the canvas and each other; nothing sees them, and they leave nothing in the store (WINO, arXiv:2507.18578,
figure 2).
"""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.attention import attend_folded, fold_heads, unfold_heads
from freshkv.core.network import Network
from freshkv.core.pattern import PatternSight
from freshkv.core.rows import RowSet
from freshkv.core.store import RowStore
from freshkv.core.uploads import numbers
from freshkv.core.visible import VisibleKeys


class ShadowRows:
    """The shadow of the positions ``rows`` while it goes through the layers."""

    def __init__(
        self, network: Network, rows: RowSet, rotary: tuple[Tensor, Tensor], sight: PatternSight | None = None
    ) -> None:
        spec = network.network_spec
        self._sight, self._shift = sight, spec.logits_shift
        self.rows = rows
        self._network = network
        # read one row before the position where the logits are shifted
        read_at = self.rows.flat - spec.logits_shift
        self._rotary = (rotary[0].index_select(0, read_at), rotary[1].index_select(0, read_at))
        masks = torch.full((self.rows.count,), spec.mask_token_id, device=rows.flat.device)
        self.hidden = network.embed_rows(masks)

    def advance(self, layer: int, store: RowStore, seen: VisibleKeys) -> None:
        """Through one layer, whose rows of the canvas have been written to ``store`` already.

        ``seen`` says which keys of the canvas may be attended to.
        """
        network, rows = self._network, self.rows
        queries, keys, values = network.project(layer, self.hidden, self._rotary)
        canvas_keys, canvas_values = store.attended(layer, seen)
        all_keys, all_values = (
            torch.cat((canvas, rows.rectangular(own).permute(2, 0, 1, 3)), dim=2)  # [kv_heads, batch, kept + widest, …]
            for canvas, own in ((canvas_keys, keys), (canvas_values, values))
        )
        heads, kv_heads = queries.shape[1], keys.shape[1]
        folded = fold_heads(rows.rectangular(queries), kv_heads)
        mask = self._visibility(layer, seen).repeat(1, heads // kv_heads, 1)[None]
        attended = attend_folded(folded, all_keys, all_values, mask)
        self.hidden = self.hidden + network.attention_output(layer, rows.packed(unfold_heads(attended, heads)))
        self.hidden = self.hidden + network.feed_forward(layer, self.hidden)

    def _visibility(self, layer: int, seen: VisibleKeys) -> Tensor:
        """bool [batch, widest, kept + widest]: what each shadow row may attend to."""
        rows, (batch, seq), device = self.rows, self.rows.mask.shape, self.rows.flat.device
        position = rows.rectangular(rows.flat % seq)  # long [batch, widest]
        columns = torch.arange(seq, device=device)[None] if seen.columns is None else seen.columns
        canvas = columns[:, None] != position[:, :, None]
        mutual = None
        if self._sight is not None:
            seen = self._sight.by(layer, rows, seen, before=self._shift)
            mutual = self._sight.between(layer, rows, before=self._shift)
        if seen.mask is not None:
            canvas = canvas & (seen.mask if seen.mask.ndim == 3 else seen.mask[:, None])
        counts = numbers(rows.counts, device)[:, None]
        real = torch.arange(rows.widest, device=device) < counts  # the rest repeats a row
        others = real[:, None, :].expand(batch, rows.widest, rows.widest)
        return torch.cat((canvas, others if mutual is None else others & mutual), dim=2)
