"""Between positions and the rows that predict them. The only code that knows how a model's logits are shifted."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.axes import SEQ


def rows_read_for(positions: Tensor, shift: int) -> Tensor:
    """The rows, bool [batch, seq], whose logits predict ``positions``, bool [batch, seq].

    With a shift of one that is the row before; position 0 has none. All positions of a sequence mean all its rows.
    """
    if shift == 0:
        return positions
    before = torch.zeros_like(positions)
    before[:, :-shift] = positions[:, shift:]
    return before | positions.all(dim=SEQ, keepdim=True)


def values_read_for(values: Tensor, shift: int, fill: float) -> Tensor:
    """``values``, [batch, seq] by position, at the rows that predict those positions: [batch, seq] by row.

    With a shift of one every value moves one row to the left; the last row, which predicts nothing, gets
    ``fill``.
    """
    if shift == 0:
        return values
    before = torch.full_like(values, fill)
    before[:, :-shift] = values[:, shift:]
    return before


def positions_read_from(rows: Tensor, shift: int) -> Tensor:
    """The positions, bool [batch, seq], that ``rows``, bool [batch, seq], predict."""
    if shift == 0:
        return rows
    after = torch.zeros_like(rows)
    after[:, shift:] = rows[:, :-shift]
    return after
