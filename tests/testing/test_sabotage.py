"""Each broken policy or decoder is caught by the one check whose business it is, and told what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch

from freshkv.core import planning
from freshkv.core.plan import StepPlan
from freshkv.core.store import RowStore
from freshkv.core.view import StepView
from freshkv.testing.conformance import policy_checks
from freshkv.testing.conformance.decoder_checks import DECODER_CHECKS
from freshkv.testing.conformance.kit import Kit
from freshkv.testing.conformance.policy_checks import POLICY_CHECKS
from freshkv.testing.conformance.subject import Subject
from tests.testing.saboteurs import DECODERS, POLICIES, Idle, Tunnel, Whole


def failures(given: Any, kind: str, exact: Any = None, examples: int = 6) -> dict[str, str]:
    """What failed, with its explanation."""
    checks = POLICY_CHECKS if kind == "policy" else DECODER_CHECKS
    kit = Kit(Subject.of(given, kind, exact), checks, examples, shrink=False)
    outcomes = [kit.outcome(name) for name in checks]
    return {outcome.check.name: outcome.message for outcome in outcomes if outcome.status == "failed"}


def assert_only(found: dict[str, str], check: str, words: str) -> None:
    assert list(found) == [check], found
    explanation = found[check]
    assert words in explanation
    assert "Why it matters: " in explanation
    assert "What to change: " in explanation


@pytest.mark.parametrize("saboteur", POLICIES, ids=lambda cls: cls.__name__)
def test_a_broken_policy_is_caught_by_its_check_alone(saboteur: type[Any]) -> None:
    assert_only(failures(saboteur, "policy"), *POLICIES[saboteur])


@pytest.mark.parametrize("saboteur", DECODERS, ids=lambda cls: cls.__name__)
def test_a_broken_decoder_is_caught_by_its_check_alone(saboteur: type[Any]) -> None:
    assert_only(failures(saboteur, "decoder"), *DECODERS[saboteur])


@pytest.mark.parametrize("lawful", [Idle, Tunnel])
def test_a_policy_that_predicts_nothing_or_hides_nearly_all_keeps_the_contract(lawful: type[Any]) -> None:
    assert failures(lawful, "policy") == {}


def test_options_that_are_not_exact_are_caught() -> None:
    found = failures("dual", "policy", exact="dual")
    assert_only(found, "with_its_exact_options_it_is_the_uncached_run", "'dual' is not the uncached run")


def test_a_policy_whose_full_update_sets_are_not_the_uncached_run_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_checks, "refreshing_everything", lambda policy: policy)
    found = failures("dual", "policy")
    assert_only(found, "with_every_row_refreshed_it_is_the_uncached_run", "with every row refreshed is not")


def without_column_0(view: StepView, plan: StepPlan) -> torch.Tensor:
    return plan.rows & (torch.arange(view.shape[1]) > 0)


def without_what_is_hidden(view: StepView, plan: StepPlan) -> torch.Tensor:
    return plan.rows if plan.visible is None else plan.rows & (plan.visible | ~plan.added)


@pytest.mark.parametrize(("policy", "rows"), [("dual", without_column_0), (Tunnel, without_what_is_hidden)])
def test_a_core_that_leaves_out_a_row_at_first_is_caught(
    policy: str | type[Tunnel],
    rows: Callable[[StepView, StepPlan], torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan_step(asked: Any, view: StepView, spec: Any, **options: Any) -> StepPlan:
        plan = original(asked, view, spec, **options)
        return attrs.evolve(plan, rows=rows(view, plan)) if view.step == 0 else plan

    created = RowStore.__init__

    def create(store: Any, *arguments: Any, **options: Any) -> None:
        created(store, *arguments, **options)
        for memory in (store._keys, store._values):
            memory.fill(0.0)  # what happens to lie in fresh memory may be NaN, which ends the run before the check

    original = planning.plan_step
    monkeypatch.setattr(RowStore, "__init__", create)
    monkeypatch.setattr(planning, "plan_step", plan_step)
    found = failures(policy, "policy")
    check = "the_first_step_refreshes_everything"
    assert_only(found, check, "The first step left out columns [0")


def test_a_core_that_reads_what_was_never_written_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    created = RowStore.__init__

    def create(store: Any, *arguments: Any, poison: bool = False, **options: Any) -> None:
        created(store, *arguments, poison=poison, **options)
        if not poison:
            store._values.fill(0.0)

    monkeypatch.setattr(RowStore, "__init__", create)
    monkeypatch.setattr(RowStore, "write_values", lambda *_: None)
    found = failures(Whole, "policy")
    assert_only(found, "what_was_never_written_is_never_read", "logits are NaN")


def test_an_explanation_names_the_run_that_shows_it() -> None:
    kit = Kit(Subject.of(next(iter(POLICIES)), "policy"), POLICY_CHECKS, 3)
    message = kit.outcome("every_answer_has_the_right_form").message
    assert "Seen with: policy 'broken', decoder 'confidence'" in message
    assert "1 prompt of 2 columns (padding [0]), 2 response positions in blocks of 2" in message


def test_a_check_that_fails_because_of_a_more_basic_one_is_blocked() -> None:
    kit = Kit(Subject.of(next(iter(POLICIES)), "policy"), POLICY_CHECKS, 2, shrink=False)
    outcome = kit.outcome("padding_changes_nothing")
    assert outcome.status == "blocked"
    assert "every answer has the right form" in outcome.message
