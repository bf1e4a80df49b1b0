"""The rollout signal equals the explicit product of matrices, and the recorded importance."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import freshkv
from freshkv import Selection, StepView
from freshkv.core import kept_attention
from freshkv.core.naive import NaiveExecutor
from freshkv.core.registry import resolve_policy
from freshkv.testing import wrapped
from tests.core.schedule import Schedule, Step, run_carried, run_naive, run_narrow, schedules
from tests.core.support import examples
from tests.golden_cases import GoldenCase, cases, network


class AttentionWatcher(NaiveExecutor):
    """Remembers the queries of the last step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.queries: dict[tuple[int, int, int], Tensor] = {}

    def _project(self, layer: int, place: tuple[int, int], state: Tensor) -> Tensor:
        self.queries[(layer, *place)] = super()._project(layer, place, state)
        return self.queries[(layer, *place)]


def dense_rollout(naive: AttentionWatcher, step: Step) -> Tensor:
    """Column sums of the product of rownorm(A + I), last layer first, built as seq x seq matrices."""
    batch, seq = step.tokens.shape
    spec = naive.spec
    importance = torch.zeros(batch, seq, dtype=torch.float64)
    for b in range(batch):
        product = torch.diag(naive.is_valid[b].double())  # padding carries nothing
        for layer in reversed(range(spec.layers)):
            attention = torch.eye(seq, dtype=torch.float64)
            keys = torch.stack([naive.keys[layer, b, i] for i in range(seq)]).double()
            keys = keys.repeat_interleave(spec.heads // spec.kv_heads, dim=1)  # [seq, heads, head_width]
            for i in step.rows[layer, b].nonzero()[:, 0].tolist():
                scores = torch.einsum("hd,shd->hs", naive.queries[layer, b, i].double(), keys)
                seen = naive._seen(layer, step.visible)[b]
                scores = (scores * spec.head_width**-0.5).masked_fill(~seen, float("-inf"))
                attention[i] = scores.softmax(dim=-1).mean(dim=0)
            mixed = attention + torch.eye(seq, dtype=torch.float64)
            product = product @ (mixed / mixed.sum(dim=-1, keepdim=True))
        importance[b] = product.sum(dim=0)
    return importance


@examples(30)
@given(schedule=schedules(same_in_all_layers=False))
def test_the_rollout_of_the_carried_path_is_the_product_of_the_matrices(schedule: Schedule) -> None:
    engine, naive = (
        schedule.engine(carried=True, keep_paid=True),
        AttentionWatcher(schedule.network, schedule.is_valid),
    )
    for step in schedule.steps:
        run_carried(schedule, engine, step)
        run_naive(schedule, naive, step)
        torch.testing.assert_close(engine.rollout().double(), dense_rollout(naive, step), rtol=1e-4, atol=1e-5)


@examples(30)
@given(schedule=schedules(same_in_all_layers=True))
def test_the_rollout_of_the_narrow_path_is_the_product_of_the_matrices(schedule: Schedule) -> None:
    engine, naive = (
        schedule.engine(carried=False, keep_paid=True),
        AttentionWatcher(schedule.network, schedule.is_valid),
    )
    for step in schedule.steps:
        run_narrow(engine, step)
        run_naive(schedule, naive, step)
        importance = engine.rollout()
        torch.testing.assert_close(importance.double(), dense_rollout(naive, step), rtol=1e-4, atol=1e-5)
        assert not bool(importance[~schedule.is_valid].any()), "padding carries importance"


@examples(40)
@given(schedule=schedules(same_in_all_layers=False), carried=st.booleans(), queries=st.booleans())
def test_what_falls_off_on_the_way_is_what_is_computed_again(schedule: Schedule, carried: bool, queries: bool) -> None:
    """Signals from probabilities that attention computed in the open, and from queries."""
    opened = schedule.engine(carried=carried, keep_queries=queries, keep_paid=True)
    again = schedule.engine(carried=carried, keep_queries=queries, keep_paid=True)
    for step in schedule.steps:
        results = []
        for engine, most in ((opened, kept_attention.MOST_OPEN), (again, 0)):
            with patch.object(kept_attention, "MOST_OPEN", most):
                if carried:
                    hidden, _ = run_carried(schedule, engine, step)
                else:
                    _, hidden = run_narrow(engine, step)
                forms = {kept.paid is None for kept in engine._attended.layers if kept.rows.count > 0}
                assert forms <= {most == 0}
                asking = step.rows[0]
                signals = [engine.rollout(), engine.attention_received(asking)]
                if queries:
                    signals.append(engine.attention_scores(asking))
                results.append((hidden, signals))
        (first, some), (second, others) = results
        flowing = slice(None) if carried else step.rows[0]
        schedule.assert_same(first[flowing], second[flowing])
        for one, other in zip(some, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


RECORDED = [case for case in cases("vanilla") if case.parts[1].startswith("d2w") and "d2_importance" in case.tensors]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case.name)
def test_the_rollout_that_a_policy_sees_is_the_recorded_importance(case: GoldenCase) -> None:
    seen: list[Tensor] = []

    def remember(original: Any) -> Any:
        def select(view: StepView) -> Selection:
            seen.append(view.signals.get("attention_rollout", torch.empty(0)))
            return original(view)

        return select

    options = case.options()
    options["policy"] = wrapped(resolve_policy(options["policy"]), select=remember)
    freshkv.generate(network(case.path.parent), **options)
    recorded = case.tensors["d2_importance"]
    assert len(seen) > 2
    for number, importance in enumerate(seen[1:]):
        torch.testing.assert_close(importance, recorded[number], rtol=1e-4, atol=1e-4)
