"""How much memory a sequence takes while it is decoded, and how many fit a device beforehand.

What is cached is counted exactly; the largest tensors of a pass are an estimate, so that a share of the memory is left
free.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import field, frozen
from attrs.validators import gt, le

from freshkv.core.decoder import Decoder
from freshkv.core.engine_options import engine_options
from freshkv.core.network import NetworkSpec
from freshkv.core.policy import CachePolicy
from freshkv.core.predict import LEAST_POSITIONS
from freshkv.core.request import Request
from freshkv.core.sampling import Sampling
from freshkv.core.turns import most_rows

#: beyond so many, sequences only wait for each other: a step computes enough rows to keep any device busy
MOST_SLOTS = 64
#: of the free memory, what a plan makes use of
SHARE = 0.9
#: bytes of a logit besides the network's own: float32, and two copies of it while confidences are computed
LOGIT_BYTES = 12
#: more of them where tokens are drawn: float32 and float64 copies, and sums
SAMPLED_LOGIT_BYTES = 24
#: and where only the most probable tokens are kept: a sorted copy with its order, probabilities, sums
SORTED_LOGIT_BYTES = 24
#: and where distributions are compared with those of the step before: both, and their terms
COMPARED_LOGIT_BYTES = 16


@frozen(kw_only=True)
class SequenceBytes:
    """Memory of one sequence."""

    cache: int  #: keys and values of every row, and what the policy has kept besides: its part of ``RowStore.bytes``
    copies: int = 0  #: of visible keys and values, at most, for policies that hide some
    truth: int = 0  #: caches of the uncached forward beside policies that look at it
    working: int  #: the largest tensors of a pass that computes everything; an estimate

    @property
    def total(self) -> int:
        """All of it."""
        return self.cache + self.copies + self.truth + self.working

    def __str__(self) -> str:
        caches = self.total - self.working
        return f"{readable(self.total)} (caches {readable(caches)}, working memory {readable(self.working)})"


@frozen(kw_only=True)
class Workload:
    """What decides how much memory sequences take, besides the network."""

    policy: CachePolicy
    decoder: Decoder
    seq: int  #: columns of the canvas: prompt, padding and response
    gen_length: int  #: response positions
    block_length: int  #: response positions
    element_size: int  #: bytes, of weights and caches
    sampling: Sampling = field(factory=Sampling)

    def bytes(self, spec: NetworkSpec) -> SequenceBytes:
        """Of one sequence in a network with ``spec``."""
        pair = 2 * spec.layers * self.seq * spec.kv_heads * spec.head_width * self.element_size
        # a gathered copy of a layer has a row more, for what is not in it
        row_of_copies = 2 * spec.layers * spec.kv_heads * spec.head_width * self.element_size
        return SequenceBytes(
            cache=spec.layers * self.seq * self._row_elements(spec) * self.element_size,
            copies=pair + row_of_copies if self.policy.hides_keys else 0,
            truth=pair if self.policy.uses_truth else 0,
            working=self._working(spec),
        )

    def _row_elements(self, spec: NetworkSpec) -> int:
        """What is kept of a row in every layer."""
        kept = engine_options(self.policy)
        return (
            2 * spec.kv_heads * spec.head_width
            + spec.width * kept["carried"]
            + spec.width * kept["keep_inputs"]
            + spec.heads * spec.head_width * kept["watch_attention"]
        )

    def _working(self, spec: NetworkSpec) -> int:
        """Hidden states with the feed-forward network of all rows, or the logits of what is predicted: the larger."""
        widened = min(self.seq, most_rows(self.element_size)) * 3 * spec.feed_forward_width  # more rows take turns
        layer = (self.seq * 4 * spec.width + widened) * self.element_size
        queries = 0
        kept = engine_options(self.policy)
        if kept["keep_queries"] or kept["keep_paid"] or kept["keep_rollout"]:
            queries = spec.layers * self.seq * spec.heads * spec.head_width * self.element_size
        return queries + max(layer, self._predicted() * spec.vocabulary * self._logit_bytes())

    def _predicted(self) -> int:
        """Positions whose logits exist at a time in the first pass."""
        shadow = self.block_length if self.decoder.revocable else 0
        if "divergence" in self.decoder.needs:
            return self.gen_length + shadow
        # those outside the block take turns, while those inside are kept for the decoder
        outside = LEAST_POSITIONS if "confidence" in self.policy.needs else 0
        return min(self.gen_length, self.block_length + outside) + shadow

    def _logit_bytes(self) -> int:
        return (
            self.element_size
            + LOGIT_BYTES
            + SAMPLED_LOGIT_BYTES * (self.sampling.temperature > 0)
            + SORTED_LOGIT_BYTES * (self.sampling.top_p is not None)
            + COMPARED_LOGIT_BYTES * ("divergence" in self.decoder.needs)
        )


def workload_of(
    requests: Sequence[Request],
    policy: CachePolicy,
    decoder: Decoder,
    sampling: Sampling,
    *,
    spec: NetworkSpec,
    dtype: torch.dtype,
) -> Workload:
    """What sequences of a canvas take that holds any of ``requests``, of which there is at least one."""
    cpu = torch.device("cpu")
    return Workload(
        policy=policy,
        decoder=decoder,
        seq=max(request.columns for request in requests),
        gen_length=max(request.gen_length for request in requests),
        block_length=max(request.canvas(spec, cpu).block_length for request in requests),
        element_size=dtype.itemsize,
        sampling=sampling,
    )


@frozen(kw_only=True)
class SlotPlan:
    """How many sequences are decoded together, and why."""

    sequence: SequenceBytes
    free: int  #: bytes of the device that nobody uses
    share: float = field(default=SHARE, validator=[gt(0.0), le(1.0)])  #: of them, what is made use of
    most: int = MOST_SLOTS

    @property
    def slots(self) -> int:
        """At least one: whether that fits is then seen."""
        return max(1, min(self.most, int(self.free * self.share) // self.sequence.total))

    def __str__(self) -> str:
        free = readable(self.free)
        return f"{self.slots} sequences are decoded together: each takes {self.sequence}, and {free} are free."


def readable(size: int) -> str:
    """Bytes with about three digits: ``3.21 GB``, ``80.0 MB``, ``512 B``."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            many = size / scale
            return f"{many:.{2 if many < 10 else 1 if many < 100 else 0}f} {unit}"
    return f"{size} B"
