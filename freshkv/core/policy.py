"""The two interfaces of cache policies. A policy decides; the core moves tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from attrs import frozen
from torch import Tensor

from freshkv.core.selection import Selection
from freshkv.core.spec import Configurable
from freshkv.core.view import StepView

#: What a policy may ask for in ``needs``:
#: ``confidence``          keep ``view.confidence`` of all masked positions up to date, not of the active block's only
#: ``attention_rollout``   ``view.signals``: float32 [batch, seq], how much of each row flows into the final states
#: ``attention_received``  ``view.signals``: float32 [batch, layers, seq], mean attention of the active block's rows
#: ``attention_drift``     fills ``LayerView.attention_drift``
SIGNALS = frozenset({"confidence", "attention_rollout", "attention_received", "attention_drift"})


class CachePolicy(Configurable, ABC):
    """Decides at every step which rows are recomputed. Subclass with ``attrs.frozen`` and give it a ``name``.

    A policy is a pure function of the view and its own frozen options: it keeps no state between calls (what it wants
    to remember it returns in ``Selection.remember``), writes to nothing it is handed, and treats every sequence of the
    batch alike and alone.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""  #: arXiv number and section
    needs: ClassVar[frozenset[str]] = frozenset()  #: see SIGNALS

    @abstractmethod
    def select(self, view: StepView) -> Selection:
        """Answer one step.

        The first step of a sequence refreshes everything whatever the answer; if no masked position of the active
        block could be predicted, the core adds the row of the leftmost one.
        """


@frozen(eq=False)
class LayerView:
    """What a layer-wise policy sees while the forward pass stands before one layer."""

    layer: int  #: from 0
    layers: int  #: how many there are
    #: float32 [batch, seq]; 1 - cosine of the fresh to the cached values (all heads) of probed rows, NaN elsewhere
    movement: Tensor
    below: Tensor  #: bool [batch, seq]; rows refreshed in the layer below in this pass, nothing before the first
    #: float32 [batch]; 1 - cosine of what the rows of the layer below pay to its most-attended key, now and in the pass
    #: before, NaN where unknown
    attention_drift: Tensor


class LayerwisePolicy(CachePolicy):
    """A policy whose rows differ by layer: all rows are carried, unrefreshed ones add their cached outputs.

    ``select`` says what is visible and what to remember; its ``predict`` adds no rows, because every row is carried.
    """

    def select(self, view: StepView) -> Selection:
        """By default every position of the active block is predicted."""
        return Selection(predict=view.in_block)

    def probe(self, view: StepView) -> Tensor | None:
        """Rows, bool [batch, seq], whose values are recomputed and stored in every layer before it chooses its rows."""
        return None

    @abstractmethod
    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """Rows, bool [batch, seq], that are refreshed in this layer."""
