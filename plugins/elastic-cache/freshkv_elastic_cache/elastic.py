"""Recompute a window of masks, and everything from the layer on in which attention has drifted."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, instance_of, le
from torch import Tensor

from freshkv import LayerView, LayerwisePolicy, Selection, StepView, best

_count = and_(instance_of(int), ge(1))


@attrs.frozen
class ElasticCache(LayerwisePolicy):
    """Elastic-Cache (arXiv:2510.14973, section 3): rows grow with depth.

    Exact when gamma = 1 and no block is longer than ``window``. In every layer the first ``window`` undecided positions
    are recomputed, what was just decided, and the decided tokens that received most attention, ``track`` for each
    layer. Once the attention that these pay in a layer is less similar to that of the step before than ``gamma``
    (cosine), all layers above recompute everything. Only the window is decided.
    """

    name = "elastic"
    paper = "Elastic-Cache, arXiv:2510.14973, section 3"
    needs = frozenset({"attention_drift", "attention_received"})
    tuned_for = "LLaDA-8B-Instruct and LLaDA-1.5 on humaneval and mbpp"
    budget_field = "window"
    predicts = "refreshed"

    window: int = attrs.field(default=16, validator=_count)  #: undecided positions
    #: cosine similarity below which a layer counts as drifted; 1: reuse nothing
    gamma: float = attrs.field(default=0.9, converter=float, validator=and_(ge(0.0), le(1.0)))
    track: int = attrs.field(default=1, validator=_count)  #: most-attended tokens of each layer that are watched

    def select(self, view: StepView) -> Selection:
        """The window may be decided; the most-attended tokens are watched."""
        return Selection(predict=self._window(view), watch=self._tracked(view))

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """The window and the watched; everything above a layer that drifted or that recomputed everything."""
        if self.gamma == 1:
            return view.everything
        rows = view.rows_for(self._window(view)) | view.dirty | self._tracked(view)
        if layer.layer == 0:
            return rows
        everything_below = (layer.below | ~view.is_valid).all(dim=1)
        drifted = layer.attention_drift > 1 - self.gamma  # False where the drift is unknown
        return rows | (everything_below | drifted)[:, None]

    def _window(self, view: StepView) -> Tensor:
        return view.is_open & (view.is_open.long().cumsum(dim=1) <= self.window)

    def _tracked(self, view: StepView) -> Tensor:
        """The decided tokens that the block attended to most in the last step, of all layers: bool [batch, seq]."""
        received = view.signals["attention_received"]
        layers = received.shape[1]
        # what was decided in the last step was a mask then
        known = view.is_valid & ~view.is_masked & ~view.dirty
        tracked = best(received.flatten(0, 1), known.repeat_interleave(layers, dim=0), self.track)
        return tracked.view_as(received).any(dim=1)
