"""Passes recorded once and replayed: on a GPU, a step with few rows spends most of its time on launching kernels.

A recording has fixed shapes. So the rows of a pass are filled up to one of few widths, by repeating rows that are
computed anyway; whoever reads the results sees the rows that were chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.errors import FreshkvError
from freshkv.core.rows import RowSet
from freshkv.core.uploads import uploaded

#: widths up to NARROW are multiples of FINE, wider ones of COARSE: a GPU reads the weights as long for 1 row as for 16
NARROW, FINE, COARSE = 128, 16, 64

#: passes that run before one is recorded, so that libraries have chosen their kernels and taken their memory
WARM_UP = 2

#: what a pass does: it reads buffers that stay where they are, and returns what it made
Work = Callable[[], tuple[Tensor, ...]]


@frozen(eq=False)
class Made:
    """What a pass makes."""

    of_rows: tuple[Tensor, ...]  #: [rows, ...] each
    of_canvas: tuple[Tensor, ...] = ()  #: [batch, seq] each


#: (tokens [batch, seq], rows, real) to what a pass makes of them; ``real``, bool [rows], is false at repeated rows
Layers = Callable[[Tensor, RowSet, Tensor], Made]


@frozen(eq=False)
class Recording:
    """A pass that can be replayed: afterwards ``outputs`` hold what it made of what its buffers hold now."""

    replay: Callable[[], None]
    outputs: tuple[Tensor, ...]


Record = Callable[[Work], Recording]


def record_cuda_graph(work: Work) -> Recording:
    """A CUDA graph. Raises FreshkvError where ``work`` does something that cannot be recorded, such as a transfer."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            outputs = work()
    except RuntimeError as error:
        raise FreshkvError(
            f"This network's layers cannot be recorded as a CUDA graph ({error}). Leave cuda_graphs out: a pass must "
            "not ask the device for anything, as mixtures of experts do."
        ) from error
    return Recording(graph.replay, outputs)


def record_eagerly(work: Work) -> Recording:
    """The same without a device: a replay does the work again. It shows what a recording reads that it must not."""
    outputs = tuple(output.clone() for output in work())

    def replay() -> None:
        for kept, fresh in zip(outputs, work(), strict=True):
            kept.copy_(fresh)

    return Recording(replay, outputs)


def filled_width(widest: int, seq: int) -> int:
    """The width that rows are filled up to: at least ``widest``, at most ``seq``."""
    step = FINE if widest <= NARROW else COARSE
    return min(-(-widest // step) * step, seq)


@frozen(eq=False)
class FilledRows:
    """Rows of a pass, each sequence's last one repeated up to the same width."""

    flat: Tensor  #: long [batch * width]; indices into batch * seq
    real: Tensor  #: bool [batch * width]; false where a row is repeated
    own: Tensor | None  #: long [rows]; where each chosen row is among the filled ones. None: the first ones, in order

    @classmethod
    def of(cls, rows: RowSet, width: int) -> FilledRows:
        """``rows``, at least one of each sequence and at most ``width``."""
        count, device = torch.tensor(rows.counts)[:, None], rows.flat.device  # [batch, 1]
        column = torch.arange(width)[None, :]
        index = (count.cumsum(0) - count + column.minimum(count - 1)).flatten()
        real = (column < count).flatten()
        own = None if len(rows.counts) == 1 else uploaded(real.nonzero()[:, 0], device)
        return cls(rows.flat.index_select(0, uploaded(index, device)), uploaded(real, device), own)

    def chosen(self, filled: Tensor, count: int) -> Tensor:
        """Packed rows [count, ...] of ``filled`` [batch * width, ...]."""
        return filled[:count] if self.own is None else filled.index_select(0, self.own)


class RecordedPasses:
    """Recordings by width, for one batch. Whatever ``layers`` reads besides must stay at its place in memory."""

    def __init__(self, record: Record, layers: Layers, like: Tensor) -> None:
        self._record, self._layers = record, layers
        self._tokens = torch.zeros_like(like, dtype=torch.long)
        self._recorded: dict[int, tuple[FilledRows, Recording]] = {}
        self._of_rows = 0  # how many results are of rows; the rest is of the canvas

    def run(self, tokens: Tensor, rows: RowSet) -> Made:
        """What ``layers`` makes of ``rows``, those alone; valid until the next call."""
        width = filled_width(rows.widest, tokens.shape[1])
        filled = FilledRows.of(rows, width)
        self._tokens.copy_(tokens)
        if width in self._recorded:
            buffers, recording = self._recorded[width]
            buffers.flat.copy_(filled.flat)
            buffers.real.copy_(filled.real)
        else:
            buffers = FilledRows(filled.flat.clone(), filled.real.clone(), None)
            recording = self._record(lambda: self._work(buffers, rows.mask, width))
            self._recorded[width] = (buffers, recording)
        recording.replay()
        of_rows, of_canvas = recording.outputs[: self._of_rows], recording.outputs[self._of_rows :]
        return Made(tuple(filled.chosen(output, rows.count) for output in of_rows), of_canvas)

    def _work(self, buffers: FilledRows, mask: Tensor, width: int) -> tuple[Tensor, ...]:
        counts = (width,) * mask.shape[0]
        # the mask is not read
        rows = RowSet(mask=mask, flat=buffers.flat, counts=counts, span=None, queries=None, answers=None)
        made = self._layers(self._tokens, rows, buffers.real)
        self._of_rows = len(made.of_rows)
        return (*made.of_rows, *made.of_canvas)
