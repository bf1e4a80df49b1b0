"""From a policy's answer to rows: the shift, the guarantees, and which logits are needed."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.check import check_selection, check_tensor, guarded
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
    added: Tensor  #: rows that the core added
    visible: Tensor | None  #: keys that may be attended; [batch, layers, seq] where they differ by layer
    probe: Tensor | None  #: layer-wise: rows whose values are recomputed first
    selection: Selection


def first_of(mask: Tensor) -> Tensor:
    """bool [batch, seq]: the leftmost True of each sequence, nothing where there is none."""
    return mask & (mask.long().cumsum(dim=SEQ) == 1)


def plan_step(policy: CachePolicy, view: StepView, spec: NetworkSpec, *, predict_all: bool = False) -> StepPlan:
    """Ask the policy and make a plan that keeps what the core guarantees. Raises PolicyError.

    ``predict_all`` asks for logits of every masked position whose row goes through, not of the active block only.
    """
    where = f"{type(policy).__name__}.select"
    with guarded(where, view, PolicyError):
        selection = check_selection(policy.select(view), view.shape, spec.layers, where)
    candidates = view.is_masked if predict_all or "confidence" in policy.needs else (view.is_open & view.in_block)
    if isinstance(policy, LayerwisePolicy):
        return StepPlan(
            rows=view.everything,
            predict=candidates,
            added=view.nothing,
            visible=_visible(selection, view),
            probe=_probe(policy, view),
            selection=selection,
        )
    shift = spec.logits_shift
    chosen = rows_read_for(selection.predict, shift)
    if selection.refresh is not None:
        chosen = chosen | selection.refresh
    if view.step == 0:
        chosen = view.everything
    predicted = positions_read_from(chosen, shift) & candidates
    stuck = ~(predicted & view.is_open & view.in_block).any(dim=SEQ, keepdim=True)
    rescue = first_of(view.is_open & view.in_block) & stuck
    added = rows_read_for(rescue, shift) & ~chosen
    rows = chosen | added
    if selection.priority is not None:
        rows = _level(rows, selection.priority.masked_fill(~view.is_valid, float("-inf")))
    return StepPlan(
        rows=rows,
        predict=positions_read_from(rows, shift) & candidates,
        added=added,
        visible=_visible(selection, view),
        probe=None,
        selection=selection,
    )


def _visible(selection: Selection, view: StepView) -> Tensor | None:
    if selection.visible is None:
        return None
    valid = view.is_valid if selection.visible.ndim == 2 else view.is_valid[:, None]
    blind = ~(selection.visible & valid).any(dim=-1)
    if bool(blind.any()):
        who = sorted({int(view.sequence[place]) for place in blind.nonzero()[:, 0].tolist()})
        raise PolicyError(f"The selection leaves no visible key at all in sequences {who} at step {view.step}.")
    return selection.visible


def _probe(policy: LayerwisePolicy, view: StepView) -> Tensor | None:
    if view.step == 0:
        return None  # nothing is cached yet that a value could have moved from
    where = f"{type(policy).__name__}.probe"
    with guarded(where, view, PolicyError):
        probe = policy.probe(view)
    if probe is not None:
        check_tensor(probe, torch.bool, view.shape, where, PolicyError)
    return probe


def _level(rows: Tensor, priority: Tensor) -> Tensor:
    """Give every sequence as many rows as the widest, best priority first; ties to the lower position."""
    missing = rows.sum(dim=SEQ).max() - rows.sum(dim=SEQ, keepdim=True)  # long [batch, 1]
    wish = priority.masked_fill(rows, float("-inf"))
    order = wish.argsort(dim=SEQ, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        SEQ, order, torch.arange(rows.shape[SEQ], device=rows.device).expand_as(order)
    )
    return rows | (rank < missing)
