"""What a forward pass gives back."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from freshkv.core.rows import RowSet
from freshkv.core.shadow import ShadowRows


@frozen(eq=False)
class ForwardResult:
    """Final hidden states of the rows that came through, and which rows were refreshed where."""

    hidden: Tensor  #: [rows.count, width], before the final norm
    rows: RowSet  #: the rows of ``hidden``
    refreshed: tuple[RowSet, ...]  #: for each layer
    shadow: ShadowRows | None = None  #: where a decoder asked for it
    #: for each layer, how many rows of each sequence had their values alone computed first; empty: none
    probed: tuple[tuple[int, ...], ...] = ()
    #: for each layer, how many rows of each sequence had their attention compared; empty: none
    watched: tuple[tuple[int, ...], ...] = ()
