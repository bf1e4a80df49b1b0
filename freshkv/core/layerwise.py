"""Asks a layer-wise policy layer by layer, while the forward pass goes on, and keeps what the core guarantees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import evolve
from torch import Tensor

from freshkv.core.agreement import agreed_mask
from freshkv.core.check import check_tensor, guarded
from freshkv.core.division import UNDIVIDED, Division
from freshkv.core.errors import PolicyError
from freshkv.core.groups import Groups
from freshkv.core.plan import StepPlan, rescued
from freshkv.core.policy import LayerView, LayerwisePolicy
from freshkv.core.probing import Probing
from freshkv.core.rows import RowSet
from freshkv.core.shift import positions_read_from
from freshkv.core.view import StepView


def probes_apart(policy: LayerwisePolicy) -> bool:
    """Whether the policy names the rows to probe layer by layer, not once for all of them."""
    return type(policy).probe_layer is not LayerwisePolicy.probe_layer


class LayerQuestions:
    """One pass of a layer-wise policy: which rows are probed and refreshed in each layer, all groups together.

    ``drift`` gives the attention drift of the layer that was computed last, float32 [batch]; ``layers`` counts the
    network's. ``computed``, bool [batch, seq], leaves rows out, whatever the policy says; None: it leaves none out.
    ``division`` has the processes agree.
    """

    def __init__(
        self,
        policy: LayerwisePolicy,
        views: Sequence[StepView],
        groups: Groups,
        plan: StepPlan,
        *,
        layers: int,
        shift: int,
        drift: Callable[[], Tensor],
        computed: Tensor | None = None,
        division: Division = UNDIVIDED,
    ) -> None:
        self._policy, self._views, self._groups, self._plan = policy, views, groups, plan
        self._layers, self._shift, self._drift = layers, shift, drift
        self._division = division
        self._below = torch.zeros_like(plan.rows)
        self._added = torch.zeros_like(plan.rows)
        self._apart = probes_apart(policy)
        self._probe: RowSet | None = None
        self._computed = computed
        self._left = (self._below, self._below)  # a choice, and what is computed of it
        self.probing = Probing(self.probe, policy.probes, policy.probe_stores)

    def probe(self, layer: int) -> RowSet | None:
        """The rows to measure in this layer. One question for all layers, unless the policy tells them apart."""
        if layer == 0 or self._apart:
            below = self._groups.split(self._below)
            asked = [self._ask_probe(view, layer, rows) for view, rows in zip(self._views, below, strict=True)]
            probed = self._groups.merge_optional(asked, [view.is_masked for view in self._views], missing=False)
            probed = agreed_mask(self._division, probed)
            self._probe = None if probed is None else RowSet.of(self._leave_out(probed))
        return self._probe

    def choose(self, layer: int, movement: Tensor) -> Tensor:
        """The rows that are refreshed in this layer, bool [batch, seq]."""
        facts = (self._groups.split(fact) for fact in (movement, self._below, self._drift()))
        layers = [LayerView(layer, self._layers, *parts) for parts in zip(*facts, strict=True)]
        answers = [self._ask_rows(view, facts) for view, facts in zip(self._views, layers, strict=True)]
        self._below = self._division.first(self._groups.merge(answers))
        if layer == self._layers - 1 and self._policy.predicts == "refreshed":
            self._added = rescued(self._below, self._plan.predict & self._plan.due, self._shift)
            if bool(self._added.any()):
                self._below = self._below | self._added
        return self._leave_out(self._below)

    def answered(self) -> StepPlan:
        """The plan, now that all layers have been chosen: what is predicted, and which rows the core added."""
        if self._policy.predicts == "carried":
            return self._plan
        return evolve(
            self._plan,
            predict=self._plan.predict & positions_read_from(self._below, self._shift),
            added=self._added,
        )

    def _leave_out(self, rows: Tensor) -> Tensor:
        """The rows that are computed; the same tensor for the same choice, so that its indices are built once."""
        if self._computed is None:
            return rows
        if self._left[0] is not rows:
            self._left = (rows, rows & self._computed)
        return self._left[1]

    def _ask_probe(self, view: StepView, layer: int, below: Tensor) -> Tensor | None:
        if view.step == 0:
            return None  # nothing is cached yet that a row could have moved from
        policy = self._policy
        where = f"{type(policy).__name__}.{'probe_layer' if self._apart else 'probe'}"
        with guarded(where, view, PolicyError, {"below": below}):
            rows = policy.probe_layer(view, layer, self._layers, below) if self._apart else policy.probe(view)
        if rows is not None:
            check_tensor(rows, torch.bool, view.shape, where, PolicyError)
        return rows

    def _ask_rows(self, view: StepView, layer: LayerView) -> Tensor:
        if view.step == 0:
            return view.everything
        where = f"{type(self._policy).__name__}.select_layer"
        with guarded(where, view, PolicyError, {"layer.movement": layer.movement, "layer.below": layer.below}):
            rows = self._policy.select_layer(view, layer)
        check_tensor(rows, torch.bool, view.shape, where, PolicyError)
        return rows
