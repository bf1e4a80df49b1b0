"""A policy's answer for one step."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen
from torch import Tensor


@frozen(eq=False)
class Selection:
    """Which positions to predict and which rows to refresh besides. All tensors are ``[batch, seq]``.

    ``predict`` names *positions*; the core refreshes the rows that their logits are read from (the row itself for
    LLaDA, the row before for Dream). All positions of a sequence mean all of its rows. ``refresh`` names *rows*.
    """

    predict: Tensor  #: bool; positions whose logits are wanted
    refresh: Tensor | None = None  #: bool; rows to recompute besides
    #: bool [batch, seq], or [batch, layers, seq] to differ by layer; keys that may be attended. None: all. Padding is
    #: never attended
    visible: Tensor | None = field(default=None, kw_only=True)
    #: float; where given, sequences with fewer rows than the widest of the view refresh their best others, too. It
    #: makes rows depend on the batch, which is what it is for: equal counts are quicker
    priority: Tensor | None = field(default=None, kw_only=True)
    #: bool; layer-wise: rows whose attention is compared with that of the pass before, in each layer where they are
    #: refreshed. Needs the signal ``attention_drift``; padding, and the first step, are left out
    watch: Tensor | None = field(default=None, kw_only=True)
    #: tensors [batch, seq, ...] that the core hands back in ``view.memory`` from the next step on. What is not named
    #: again stays; a sequence that has not written one yet may find zeros. Name it in the first step to be sure
    remember: Mapping[str, Tensor] = field(factory=dict, kw_only=True)
