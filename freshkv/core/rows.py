"""Which rows flow: index tensors that are built once and used by every layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.uploads import uploaded


@frozen(eq=False)
class RowSet:
    """Rows of a canvas [batch, seq] in packed form: sequence by sequence, in order of position.

    ``flat`` holds batch * seq indices. Attention needs the same number of queries from each sequence: where counts
    differ, ``queries`` repeats each sequence's last row (computing it twice is harmless) and ``answers`` picks
    every row once from the result; both are None when counts are equal.
    """

    mask: Tensor  #: bool [batch, seq]
    flat: Tensor  #: long [rows]
    counts: tuple[int, ...]  #: rows of each sequence
    span: slice | None  #: the flat indices as a slice, where they are contiguous
    queries: Tensor | None  #: long [batch, widest]; index into packed rows
    answers: Tensor | None  #: long [rows]; index into batch * widest

    @classmethod
    def of(cls, mask: Tensor, on_host: Tensor | None = None) -> RowSet:
        """From bool [batch, seq]. One synchronisation with the device, unless a copy is ``on_host`` already."""
        host = mask.cpu() if on_host is None else on_host
        flat = host.flatten().nonzero()[:, 0]
        counts = tuple(host.sum(SEQ).tolist())
        count = flat.numel()
        first = int(flat[0]) if count > 0 else 0
        contiguous = count > 0 and int(flat[-1]) - first + 1 == count
        span = slice(first, first + count) if contiguous else None
        queries, answers = (None, None) if len(set(counts)) <= 1 else _rectangle(counts)
        return cls(
            mask=mask,
            flat=uploaded(flat, mask.device),
            counts=counts,
            span=span,
            queries=None if queries is None else uploaded(queries, mask.device),
            answers=None if answers is None else uploaded(answers, mask.device),
        )

    @classmethod
    def after(cls, earlier: Sequence[RowSet], mask: Tensor) -> RowSet:
        """``of``, unless the last of the ``earlier`` ones is of the very same tensor: its indices are there."""
        return earlier[-1] if earlier and earlier[-1].mask is mask else cls.of(mask)

    @classmethod
    def everything(cls, like: Tensor) -> RowSet:
        """All rows of a canvas such as ``like`` [batch, seq], without a synchronisation."""
        batch, seq = like.shape
        count = batch * seq
        return cls(
            mask=torch.ones_like(like, dtype=torch.bool),
            flat=torch.arange(count, device=like.device),
            counts=(seq,) * batch,
            span=slice(0, count),
            queries=None,
            answers=None,
        )

    @property
    def count(self) -> int:
        """Rows of all sequences together."""
        return sum(self.counts)

    @property
    def widest(self) -> int:
        """Rows of the sequence that has most."""
        return max(self.counts)

    @property
    def full(self) -> bool:
        """Whether every row of the canvas is in the set."""
        return self.count == self.mask.numel()

    def take(self, canvas: Tensor) -> Tensor:
        """The rows of ``canvas`` [batch * seq, ...], packed: [rows, ...]. A view where they are contiguous."""
        return canvas[self.span] if self.span is not None else canvas.index_select(0, self.flat)

    def put(self, canvas: Tensor, rows: Tensor) -> None:
        """Write packed ``rows`` [rows, ...] to their places in ``canvas`` [batch * seq, ...]."""
        if self.span is not None:
            canvas[self.span] = rows
        else:
            canvas.index_copy_(0, self.flat, rows)

    def take_by_head(self, canvas: Tensor) -> Tensor:
        """The rows of ``canvas`` [heads, batch * seq, width], packed: [rows, heads, width]."""
        taken = canvas[:, self.span] if self.span is not None else canvas.index_select(1, self.flat)
        return taken.transpose(0, 1)

    def put_by_head(self, canvas: Tensor, rows: Tensor) -> None:
        """Write packed ``rows`` [rows, heads, width] to their places in ``canvas`` [heads, batch * seq, width]."""
        if self.span is not None:
            canvas[:, self.span] = rows.transpose(0, 1)
        else:
            canvas.index_copy_(1, self.flat, rows.transpose(0, 1))

    def rectangular(self, rows: Tensor) -> Tensor:
        """Packed [rows, ...] to [batch, widest, ...], repeating the last row of shorter sequences."""
        if self.queries is not None:
            rows = rows.index_select(0, self.queries.flatten())
        return rows.reshape(len(self.counts), self.widest, *rows.shape[1:])

    def packed(self, rectangle: Tensor) -> Tensor:
        """The inverse: [batch, widest, ...] to [rows, ...], without the repetitions."""
        flat = rectangle.flatten(0, 1)
        return flat if self.answers is None else flat.index_select(0, self.answers)


def places_of(on_host: Tensor, device: torch.device) -> Tensor:
    """Where a mask on the host is true, as indices into its flat form, long [n] on ``device``."""
    return uploaded(on_host.flatten().nonzero()[:, 0], device)


def _rectangle(counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    count = torch.tensor(counts)[:, None]  # [batch, 1]
    widest = int(count.max())
    column = torch.arange(widest)[None, :]
    start = count.cumsum(0) - count
    # a sequence without rows borrows row 0 of the packing: its answers are never picked
    queries = (start + column.minimum((count - 1).clamp(min=0))).clamp(max=int(count.sum()) - 1)
    answers = (column < count).flatten().nonzero()[:, 0]
    return queries, answers
