"""Refresh prompt and response at intervals of their own, and in between the response rows whose values moved most."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import and_, ge, instance_of, le
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.policy import LayerView, LayerwisePolicy
from freshkv.core.view import StepView

_interval = and_(instance_of(int), ge(1))


@frozen
class DLLMCache(LayerwisePolicy):
    """dLLM-Cache (arXiv:2506.06295, section 3). Exact when kp = kr = 1.

    Layer-wise: all rows are carried, with their cached attention and feed-forward outputs. The first layer always
    refreshes everything.
    """

    name = "dllm"
    paper = "dLLM-Cache, arXiv:2506.06295, section 3"
    tuned_for = "no task in particular (the paper sets kp and kr for each model and task)"
    budget_field = "kr"
    plans_ahead = True

    kp: int = field(default=50, validator=_interval)  #: steps between refreshes of the prompt
    kr: int = field(default=2, validator=_interval)  #: steps between refreshes of the response
    #: share of the response, by how far its values moved, that is refreshed in the other steps
    rou: float = field(default=0.25, converter=float, validator=and_(ge(0.0), le(1.0)))

    def probe(self, view: StepView) -> Tensor | None:
        """The response, in steps that choose among its rows."""
        adaptive = view.step % self.kr != 0 and self.rou > 0
        return view.is_response if adaptive else None

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        """What is due, and else the response rows that moved most."""
        if layer.layer == 0:
            return view.everything
        rows = view.is_prompt if view.step % self.kp == 0 else view.nothing
        if view.step % self.kr == 0:
            return rows | view.is_response
        if self.rou == 0:
            return rows
        return rows | self._most_moved(view, layer.movement)

    def _most_moved(self, view: StepView, movement: Tensor) -> Tensor:
        response = view.is_response
        # counted where the tensors are: to ask for the number would make the host wait in every layer
        count = (self.rou * response.sum(dim=SEQ, keepdim=True, dtype=torch.float64)).floor()
        order = torch.where(response, movement, -torch.inf).argsort(dim=SEQ, descending=True, stable=True)
        rank = torch.arange(view.shape[SEQ], device=movement.device)
        return torch.empty_like(response).scatter_(SEQ, order, rank < count)
