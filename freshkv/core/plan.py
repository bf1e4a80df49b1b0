"""From a policy's answer to rows: the shift, the guarantees, and which logits are needed."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.check import check_selection, guarded
from freshkv.core.errors import PolicyError
from freshkv.core.network import NetworkSpec
from freshkv.core.policy import CachePolicy, LayerwisePolicy
from freshkv.core.selection import Selection
from freshkv.core.shift import positions_read_from, rows_read_for
from freshkv.core.view import StepView


@frozen(kw_only=True, eq=False)
class StepPlan:
    """What one forward pass does for some sequences. Tensors bool [batch, seq]."""

    rows: Tensor  #: rows that are refreshed (narrow path) or carried (all of them)
    predict: Tensor  #: masked positions whose logits are computed
    added: Tensor  #: rows that the core added to those that the policy named
    due: Tensor  #: positions of the active block that are still to be decided
    visible: Tensor | None  #: keys that may be attended to; [batch, layers, seq] where they differ by layer
    watch: Tensor | None  #: rows whose attention is compared with that of the pass before
    selection: Selection


def first_of(mask: Tensor) -> Tensor:
    """bool [batch, seq]: the leftmost True of each sequence, nothing where there is none."""
    return mask & (mask.long().cumsum(dim=SEQ) == 1)


def rescued(rows: Tensor, wanted: Tensor, shift: int) -> Tensor:
    """Rows, bool [batch, seq], that are missing from ``rows`` so that a position in ``wanted`` can be predicted.

    Nothing where ``rows`` predict one; else the row of the leftmost one.
    """
    stuck = ~(positions_read_from(rows, shift) & wanted).any(dim=SEQ, keepdim=True)
    return rows_read_for(first_of(wanted) & stuck, shift) & ~rows


def plan_step(policy: CachePolicy, view: StepView, spec: NetworkSpec, *, predict_all: bool = False) -> StepPlan:
    """Ask the policy and make a plan that keeps what the core guarantees. Raises PolicyError.

    ``predict_all`` asks for logits of every masked position whose row goes through, not of the active block only.
    """
    where = f"{type(policy).__name__}.select"
    with guarded(where, view, PolicyError):
        selection = check_selection(policy.select(view), view.shape, spec.layers, where)
    due = view.is_open & view.in_block
    candidates = view.is_masked if predict_all or "confidence" in policy.needs else due
    visible = selection.visible
    if isinstance(policy, LayerwisePolicy):
        return StepPlan(
            rows=view.everything,
            predict=candidates if policy.predicts == "carried" else _asked_for(candidates, due, selection, view),
            added=view.nothing,
            due=due,
            visible=visible,
            watch=selection.watch if view.step > 0 else None,  # nothing has been paid before
            selection=selection,
        )
    shift = spec.logits_shift
    chosen = rows_read_for(selection.predict, shift)
    if selection.refresh is not None:
        chosen = chosen | selection.refresh
    # nothing is cached before the first step, which refreshes what is hidden, too: it may be seen later
    added = ~chosen if view.step == 0 else rescued(chosen, due, shift)
    rows = chosen | added
    if selection.priority is not None:
        rows = _level(rows, selection.priority.masked_fill(~view.is_valid, float("-inf")))
    return StepPlan(
        rows=rows,
        predict=positions_read_from(rows, shift) & candidates,
        added=added,
        due=due,
        visible=visible,
        watch=None,
        selection=selection,
    )


def _asked_for(candidates: Tensor, due: Tensor, selection: Selection, view: StepView) -> Tensor:
    """Of the active block what ``selection`` names, at least one position that is due; all candidates outside."""
    none = ~(due & selection.predict).any(dim=SEQ, keepdim=True)
    return candidates & (selection.predict | (first_of(due) & none) | ~view.in_block)


def _level(rows: Tensor, priority: Tensor) -> Tensor:
    """Give every sequence as many rows as the widest, best priority first; ties to the lower position."""
    missing = rows.sum(dim=SEQ).max() - rows.sum(dim=SEQ, keepdim=True)  # long [batch, 1]
    wish = priority.masked_fill(rows, float("-inf"))
    order = wish.argsort(dim=SEQ, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        SEQ, order, torch.arange(rows.shape[SEQ], device=rows.device).expand_as(order)
    )
    return rows | (rank < missing)
