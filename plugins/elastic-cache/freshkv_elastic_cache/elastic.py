"""Recompute a window of masks, and everything from the layer on in which attention has drifted."""

from __future__ import annotations

import attrs
from attrs.validators import and_, ge, instance_of, le
from torch import Tensor

from freshkv import LayerView, LayerwisePolicy, StepView


@attrs.frozen
class ElasticCache(LayerwisePolicy):
    """Elastic-Cache (arXiv:2510.14973, section 3): rows grow with depth. Exact when gamma = 1.

    In every layer the first ``window`` undecided positions are recomputed, and what was just decided. Once the
    attention to a layer's most-attended key is less similar to that of the step before than ``gamma`` (cosine), all
    layers above recompute everything.
    """

    name = "elastic"
    paper = "Elastic-Cache, arXiv:2510.14973, section 3"
    needs = frozenset({"attention_drift"})

    window: int = attrs.field(default=16, validator=and_(instance_of(int), ge(1)))  #: undecided positions
    #: cosine similarity below which a layer counts as drifted; 1: reuse nothing
    gamma: float = attrs.field(default=0.9, converter=float, validator=and_(ge(0.0), le(1.0)))

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """The window; everything above a layer that drifted or that recomputed everything."""
        if self.gamma == 1:
            return view.everything
        rows = self._window(view)
        if layer.layer == 0:
            return rows
        everything_below = (layer.below | ~view.is_valid).all(dim=1)
        drifted = layer.attention_drift > 1 - self.gamma  # False where the drift is unknown
        return rows | (everything_below | drifted)[:, None]

    def _window(self, view: StepView) -> Tensor:
        first = view.is_open & (view.is_open.long().cumsum(dim=1) <= self.window)
        return view.rows_for(first) | view.dirty
