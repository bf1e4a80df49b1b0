"""The uncached forward beside a run, on the same canvas, and how far what is cached is from it.

Nothing of this happens unless a policy asks for the signal ``drift`` or somebody wants evidence of every step. Its work
counts nowhere: not as rows of the policy, but all the more in time and memory, which are then those of two runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.decoder import Commit
from freshkv.core.division import UNDIVIDED, Division
from freshkv.core.engine import Engine, Padding
from freshkv.core.forward_result import ForwardResult
from freshkv.core.network import Network
from freshkv.core.predict import Predicted, logits_at
from freshkv.core.rows import RowSet
from freshkv.core.state import RunState
from freshkv.core.store import RowStore

#: 1 - cosine below this is rounding: a deviation of less than 1 in 20000
ROUNDING = 1e-9

_ELEMENTS = -1  #: the axis of a vector's elements


def cosine_distance(held: Tensor, true: Tensor, division: Division = UNDIVIDED) -> Tensor:
    """1 - cosine of vectors [..., elements] to [...]: float32, float64 for float64 vectors; exactly 0 for equal ones.

    Computed as half the squared distance of the unit vectors, which keeps its digits where the cosine is nearly 1.
    ``division`` says how the elements are divided among processes.
    """
    exact = torch.promote_types(held.dtype, torch.float32)
    chord = division.unit(held.to(exact)) - division.unit(true.to(exact))
    return division.total(chord.square().sum(dim=_ELEMENTS)) / 2


def relative_norm(held: Tensor, true: Tensor, division: Division = UNDIVIDED) -> Tensor:
    """Norm of the difference over the norm of ``true``, of vectors [..., elements] to [...]; precision as above."""
    exact = torch.promote_types(held.dtype, torch.float32)
    difference, true = (held.to(exact) - true.to(exact)), true.to(exact)
    return division.norm(difference) / division.norm(true).clamp(min=torch.finfo(exact).tiny)


class Truth:
    """What the network computes without a cache, for the sequences ``is_valid``, bool [batch, seq], of a run.

    It has caches of its own, which every ``forward`` fills anew, and never touches those of the run. All valid keys are
    attended, whatever the policy hides. ``padding`` and ``inference_mode`` as an engine's.
    """

    def __init__(
        self,
        network: Network,
        is_valid: Tensor,
        *,
        keep_hidden: bool = False,
        padding: Padding = "computed",
        inference_mode: bool = True,
    ) -> None:
        options: dict[str, Any] = {"padding": padding, "inference_mode": inference_mode}
        self._engine = Engine(network, is_valid, keep_hidden=keep_hidden, **options)
        self._padding = padding
        self._hold(is_valid)

    def _hold(self, is_valid: Tensor) -> None:
        self._is_valid = is_valid
        self._everything = RowSet.everything(is_valid) if self._padding == "computed" else RowSet.of(is_valid)
        self._result: ForwardResult | None = None  # another canvas now

    @property
    def store(self) -> RowStore:
        """True keys and values (and hidden states, if kept) of the canvas that was last computed."""
        return self._engine.store

    @torch.no_grad()
    def forward(self, tokens: Tensor) -> None:
        """Compute everything for the canvas ``tokens``, long [batch, seq]."""
        self._result = self._engine.narrow(tokens, self._everything)

    @torch.no_grad()
    def drift_of(self, cached: RowStore) -> Tensor:
        """The signal ``drift`` of what a run has cached: float32 [batch, layers, seq], from 0 to 2.

        The mean of 1 - cosine of a row's keys (all heads) and of its values; 0 at padding, at rows that were never
        computed, and where it is rounding.
        """
        layers = []
        for layer in range(self._engine.spec.layers):
            keys = self._distance(cached.keys(layer), self.store.keys(layer))
            values = self._distance(cached.values(layer), self.store.values(layer))
            layers.append((keys + values) / 2)
        drift = torch.stack(layers, dim=1)
        nothing = (drift < ROUNDING) | ~(self._is_valid & cached.written)[:, None]
        return drift.masked_fill(nothing, 0.0).float()

    def _distance(self, held: Tensor, true: Tensor) -> Tensor:
        """Of all heads: [batch, seq, kv_heads, head_width] to [batch, seq]."""
        return cosine_distance(held.flatten(2), true.flatten(2), self._engine.division)

    @torch.no_grad()
    def logits(self, positions: Tensor) -> Tensor:
        """True logits, float32 [n, vocabulary], of ``positions``, bool [batch, seq] with n True, in row-major order."""
        if self._result is None:
            raise RuntimeError("Truth.logits needs a forward pass first.")
        return logits_at(self._engine.network, self._result, positions.flatten().nonzero()[:, 0])

    def keep(self, sequences: list[int]) -> None:
        """Forget all sequences but these (ascending); the last forward pass is forgotten altogether."""
        self._engine.keep(sequences)
        self._hold(self._is_valid[sequences])

    def admit(self, is_valid: Tensor) -> None:
        """Take up more sequences, bool [new, seq], in places that others have left."""
        self._engine.admit(is_valid)
        self._hold(torch.cat((self._is_valid, is_valid)))


@frozen(kw_only=True, eq=False)
class Evidence:
    """One step of a run beside the truth on the canvas that it started from: read-only, and of this moment."""

    state: RunState  #: before the step
    store: RowStore  #: of the run, after its forward pass
    result: ForwardResult  #: of the run
    predict: Tensor  #: bool [batch, seq]; positions whose logits the run computed
    predicted: Predicted
    commit: Commit
    truth: Truth


OnEvidence = Callable[[Evidence], None]
