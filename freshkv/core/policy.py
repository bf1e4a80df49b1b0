"""The two interfaces of cache policies. A policy decides; the core moves tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from attrs import frozen
from torch import Tensor

from freshkv.core.selection import Selection
from freshkv.core.spec import Configurable
from freshkv.core.view import StepView

#: What a policy may ask for in ``needs``:
#: ``confidence``          keep ``view.confidence`` of all masked positions up to date, not of the active block's only
#: ``attention_rollout``   ``view.signals``: float32 [batch, seq], how much of each row flows into the final states
#: ``attention_received``  ``view.signals``: float32 [batch, layers, seq], mean attention of the active block's rows
#: ``attention_scores``    ``view.signals``: float32 [batch, layers, seq], mean of query times key, before the softmax,
#:                         over the active block's rows and all heads; 0 where a key is not visible
#: ``drift``               ``view.signals``: float32 [batch, layers, seq], how far each row's cached keys and values are
#:                         from what an uncached pass would give now: mean of their 1 - cosine, 0 at padding and where
#:                         nothing is cached. It takes that pass, in every step: for oracles (see ``uses_truth``)
#: ``attention_drift``     fills ``LayerView.attention_drift`` for the rows in ``Selection.watch``
SIGNALS = frozenset(
    {"confidence", "attention_rollout", "attention_received", "attention_scores", "attention_drift", "drift"}
)

#: which positions a layer-wise policy's decoders choose among; see ``LayerwisePolicy.predicts``
Predicts = Literal["carried", "refreshed"]
#: what a probe measures; see ``LayerwisePolicy.probes``
Probes = Literal["values", "hidden_states"]


class CachePolicy(Configurable, ABC):
    """Decides at every step which rows are recomputed. Subclass with ``attrs.frozen`` and give it a ``name``.

    A policy is a pure function of the view and its own frozen options: it keeps no state between calls (what it wants
    to remember it returns in ``Selection.remember``), writes to nothing it is handed, and treats every sequence of the
    batch alike and alone.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""  #: arXiv number and section
    needs: ClassVar[frozenset[str]] = frozenset()  #: see SIGNALS
    #: the models and tasks that the defaults were chosen for, as its paper says; empty: there is nothing to tune
    tuned_for: ClassVar[str] = ""
    #: the option, a whole number or a share, that decides how many rows are computed: more of it, always more or always
    #: fewer. Comparisons at equal rows turn it; None: there is no such option
    budget_field: ClassVar[str | None] = None
    #: whether the uncached forward runs beside it, which is so if it needs "drift": its time and its peak memory are
    #: then not those of a cache, and ``rows_computed`` leaves that forward out
    uses_truth: ClassVar[bool] = False
    #: whether it may hide keys (``Selection.visible``): what is visible is then copied side by side where that pays.
    #: Memory that is planned beforehand counts those copies
    hides_keys: ClassVar[bool] = False
    #: whether ``select`` may be asked early, so that on an accelerator the host waits once a step and not twice: the
    #: core asks what follows if a step decides no block, before it knows. If one was decided, the answer is thrown
    #: away; the view that it was given had an active block without an open position, which must do no harm
    plans_ahead: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.uses_truth = "drift" in cls.needs

    @abstractmethod
    def select(self, view: StepView) -> Selection:
        """Answer one step.

        The first step of a sequence refreshes everything, whatever the answer: hidden rows, too. Later, if no masked
        position of the active block could be predicted, the core adds the row of the leftmost one.
        """


@frozen(eq=False)
class LayerView:
    """What a layer-wise policy sees while the forward pass stands before one layer."""

    layer: int  #: from 0
    layers: int  #: how many there are
    #: float32 [batch, seq]; how far probed rows have moved from what is cached of them in this layer, NaN elsewhere.
    #: Of values: 1 - cosine (all heads) to the cached ones. Of hidden states: mean absolute change of what enters the
    #: layer since the row was last refreshed in it, relative to the root mean square then
    movement: Tensor
    below: Tensor  #: bool [batch, seq]; rows refreshed in the layer below in this pass, nothing before the first
    #: float32 [batch]; 1 - cosine of the attention (all heads) that the watched rows pay in the layer below, now and in
    #: the pass before; NaN where none of them was refreshed there
    attention_drift: Tensor


class LayerwisePolicy(CachePolicy):
    """A policy whose rows differ by layer: all rows are carried, unrefreshed ones add their cached outputs.

    ``select`` says what is visible and what to remember; its ``predict`` adds no rows, because every row is carried.
    ``predicts``, ``probes`` and ``probe_stores`` may be class attributes, or properties that depend on options.
    """

    @property
    def predicts(self) -> Predicts:
        """Which masked positions of the active block have logits, so that a decoder may commit them.

        ``carried``: all, also those whose row is carried with cached outputs alone. ``refreshed``: those that
        ``select`` names in ``predict`` and whose row is refreshed in the last layer. Where that would be none, the core
        adds the row of the leftmost one to the last layer.
        """
        return "carried"

    @property
    def probes(self) -> Probes:
        """What is measured of probed rows: the ``values`` of a layer, which are computed for it, or the
        ``hidden_states`` that enter it, which are there anyway but take memory for those of the last refresh.
        """
        return "values"

    @property
    def probe_stores(self) -> bool:
        """Whether probed values replace the cached ones, also of rows that are not refreshed then."""
        return True

    def select(self, view: StepView) -> Selection:
        """By default every position of the active block is predicted."""
        return Selection(predict=view.in_block)

    def probe(self, view: StepView) -> Tensor | None:
        """Rows, bool [batch, seq], that are measured in every layer before it chooses its rows; None: none.

        Not asked in the first step, when nothing is cached that a row could have moved from.
        """
        return None

    def probe_layer(self, view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
        """Rows, bool [batch, seq], that are measured in this layer, one of ``layers``, in place of ``probe``.

        Write this one where the layers differ. ``below``, bool [batch, seq], are the rows refreshed in the layer below.
        """
        return self.probe(view)

    @abstractmethod
    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """Rows, bool [batch, seq], that are refreshed in this layer."""
