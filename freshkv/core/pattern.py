"""Attention patterns of networks in which a row does not see every key, because of where the two are.

Block-causal networks see their own block and those before; local layers see a window. A row that would see no key,
because a policy hides all that it may see, sees what the policy leaves.
"""

from __future__ import annotations

import torch
from attrs import evolve, frozen
from torch import Tensor

from freshkv.core.axes import BATCH, SEQ
from freshkv.core.network import NetworkSpec
from freshkv.core.rows import RowSet
from freshkv.core.visible import VisibleKeys


@frozen
class AttentionPattern:
    """Who sees whom by position; positions count from the first token of a sequence, padding left out."""

    block: int | None  #: positions; None: no blocks
    windows: tuple[int | None, ...]  #: positions, for each layer; None: no window

    @classmethod
    def of(cls, spec: NetworkSpec) -> AttentionPattern | None:
        """The pattern of a network; None where every row sees every key."""
        windows = spec.windows or (None,) * spec.layers
        if spec.block_causal is None and all(window is None for window in windows):
            return None
        return cls(spec.block_causal, windows)

    def sees(self, layer: int, row: Tensor, key: Tensor) -> Tensor | None:
        """Whether rows at positions ``row`` see keys at positions ``key``, both long and broadcast; None: all do."""
        seen = None if self.block is None else key // self.block <= row // self.block
        window = self.windows[layer]
        if window is None:
            return seen
        near = (key - row).abs() <= window
        return near if seen is None else seen & near


class PatternSight:
    """What each row of a canvas attends to under a pattern. ``positions`` is long [batch, seq]."""

    def __init__(self, pattern: AttentionPattern, positions: Tensor) -> None:
        self._pattern = pattern
        self._positions = positions

    def by(self, layer: int, rows: RowSet, seen: VisibleKeys, before: int = 0) -> VisibleKeys:
        """``seen`` as ``rows`` see it: with a mask, bool [batch, widest, kept], of its own for each row.

        ``before``: the rows stand so many columns further left, as those that predict them do.
        """
        keys = self._positions if seen.columns is None else self._positions.gather(SEQ, seen.columns)
        mask = self._pattern.sees(layer, self._of(rows, before)[:, :, None], keys[:, None, :])
        if mask is None:
            return seen
        if seen.mask is not None:
            mask = mask & seen.mask[:, None]
        blind = ~mask.any(dim=-1, keepdim=True)
        left = torch.ones_like(mask) if seen.mask is None else seen.mask[:, None]
        return evolve(seen, mask=torch.where(blind, left, mask))

    def between(self, layer: int, rows: RowSet, before: int = 0) -> Tensor | None:
        """Whether ``rows`` see each other, bool [batch, widest, widest]; None: all do."""
        own = self._of(rows, before)
        return self._pattern.sees(layer, own[:, :, None], own[:, None, :])

    def _of(self, rows: RowSet, before: int) -> Tensor:
        """Positions, long [batch, widest]."""
        return rows.rectangular(self._positions.flatten().index_select(0, rows.flat - before))

    def keep(self, index: Tensor) -> None:
        """Forget all sequences but these, long [kept]."""
        self._positions = self._positions.index_select(BATCH, index)

    def admit(self, positions: Tensor) -> None:
        """Take up more sequences, whose positions are long [new, seq]."""
        self._positions = torch.cat((self._positions, positions))
