"""What a run costs on any machine: floating point operations by part, and bytes that must move."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.network import NetworkSpec
from freshkv.core.trace import StepRecord, Trace

#: signals that go through attention once more
ATTENTION_SIGNALS = frozenset({"attention_rollout", "attention_received"})


@frozen(kw_only=True)
class Cost:
    """Operations of matrix products (a multiplication and an addition are two), and bytes.

    Counted is what the method asks for: rows that are repeated to make a batch rectangular, norms, activations and
    softmax are left out; hidden states between two products are taken to stay on the chip. What rows pay is taken to
    fall off where they attend, also where a fused kernel does not give it away and it has to be computed again.
    """

    projections: int = 0  #: queries, keys, values and the output of attention; probes
    attention: int = 0  #: queries against keys, weights against values
    feed_forward: int = 0
    head: int = 0  #: logits
    signals: int = 0  #: what a policy's signals take besides: attention that is weighed, compared or computed again
    bytes_read: int = 0  #: weights once a pass, cached keys and values of what is attended to, carried outputs
    bytes_written: int = 0  #: fresh keys, values and carried outputs

    @property
    def flops(self) -> int:
        """All parts together."""
        return self.projections + self.attention + self.feed_forward + self.head + self.signals

    @property
    def bytes_moved(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in _NAMES})


_NAMES = ("projections", "attention", "feed_forward", "head", "signals", "bytes_read", "bytes_written")


def total_cost(costs: Iterable[Cost]) -> Cost:
    """The sum; nothing costs nothing."""
    return reduce(Cost.__add__, costs, Cost())


def cost_of_trace(trace: Trace, spec: NetworkSpec) -> Cost:
    """The cost of a whole run of a network with ``spec``."""
    return total_cost(cost_of_step(step, trace, spec) for step in trace)


def cost_of_step(step: StepRecord, trace: Trace, spec: NetworkSpec) -> Cost:
    """The cost of one forward pass of ``trace``, all sequences together."""
    return _Pass(step, trace, spec).cost()


class _Pass:
    """One forward pass in counts."""

    def __init__(self, step: StepRecord, trace: Trace, spec: NetworkSpec) -> None:
        self.spec = spec
        self.rows = rows_by_sequence(step, spec.layers)  # long [layers, batch]
        self.keys = step.keys.expand(-1, spec.layers).mT  # long [layers, batch]
        self.shadow = step.shadow_rows
        self.probed = step.probed_by_layer
        self.logits = int(step.predicted.sum()) + step.shadow_rows
        self.carried = int(step.active.sum()) * step.tokens.shape[SEQ] if trace.facts["carried"] else 0
        self.signals = len(ATTENTION_SIGNALS.intersection(trace.facts["signals"]))
        self.scores = "attention_scores" in trace.facts["signals"]
        self.watched = step.watched_by_layer
        self.element = getattr(torch, trace.facts["dtype"]).itemsize

    def cost(self) -> Cost:
        spec = self.spec
        inner, kv = spec.heads * spec.head_width, spec.kv_heads * spec.head_width
        rows, pairs = self._rows(), self._pairs()
        return Cost(
            projections=2 * spec.width * (rows * (2 * inner + 2 * kv) + sum(self.probed) * kv),
            attention=4 * inner * pairs,
            feed_forward=2 * rows * self._feed_forward(),
            head=2 * self.logits * spec.width * spec.vocabulary,
            signals=self.signals * 2 * pairs + self._compared(inner) + self._scored(kv),
            bytes_read=self.element * (self._weights(inner, kv) + self._cache_read(kv)),
            bytes_written=self.element * self._cache_written(kv),
        )

    def _feed_forward(self) -> int:
        return self.spec.feed_forward_matrices * self.spec.width * self.spec.feed_forward_width

    def _rows(self) -> int:
        return int(self.rows.sum()) + self.spec.layers * self.shadow

    def _pairs(self) -> int:
        """Query-key pairs; a shadow row sees the canvas but for its own key, and its fellows."""
        pairs = int((self.rows * self.keys).sum())
        if self.shadow > 0:
            widest = int(self.keys.amax(dim=1).sum())
            pairs += self.shadow * widest + self.spec.layers * self.shadow * (self.shadow - 1)
        return pairs

    def _compared(self, inner: int) -> int:
        """Watched rows attend twice: as in the pass before, and as now."""
        widest = self.keys.amax(dim=1).tolist()
        return sum(2 * 2 * inner * count * keys for count, keys in zip(self.watched, widest, strict=False))

    def _scored(self, kv: int) -> int:
        """One query of each sequence, the block's mean, against all keys."""
        return 2 * kv * int((self.keys * (self.rows > 0)).sum()) if self.scores else 0

    def _weights(self, inner: int, kv: int) -> int:
        layer = self.spec.width * (2 * inner + 2 * kv) + self._feed_forward()
        used = int((self.rows.sum(dim=1) > 0).sum()) if self.shadow == 0 else self.spec.layers
        probed_only = sum(
            count > 0 for count, rows in zip(self.probed, self.rows.sum(dim=1).tolist(), strict=False) if rows == 0
        )
        head = self.spec.width * self.spec.vocabulary if self.logits > 0 else 0
        return used * layer + probed_only * self.spec.width * kv + head

    def _cache_read(self, kv: int) -> int:
        attended = int((self.keys * (self.rows > 0)).sum())
        return 2 * kv * attended + self.spec.layers * self.carried * self.spec.width

    def _cache_written(self, kv: int) -> int:
        rows = int(self.rows.sum())
        outputs = rows * self.spec.width if self.carried > 0 else 0
        return 2 * kv * rows + kv * sum(self.probed) + outputs


def rows_by_sequence(step: StepRecord, layers: int) -> Tensor:
    """Rows refreshed in each layer of each sequence, long [layers, batch]."""
    if step.refreshed_by_layer is not None:
        return step.refreshed_by_layer.sum(dim=2)
    return step.refreshed.sum(dim=SEQ).expand(layers, -1)
