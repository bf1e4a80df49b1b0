"""A policy that answers with something invalid is told what it returned and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import field, frozen
from torch import Tensor

from freshkv import CachePolicy, Commit, Decoder, LayerView, LayerwisePolicy, Prediction, Selection, StepView
from freshkv.core.errors import PolicyError
from tests.core.test_properties_batch import uneven_problem


@frozen
class Answers(CachePolicy):
    """Answers as it is told from the second step on."""

    name = "test-answers"
    answer: Callable[[StepView], Any] = field()

    def select(self, view: StepView) -> Any:
        return Selection(view.everything) if view.step == 0 else self.answer(view)


@frozen
class LayerAnswers(LayerwisePolicy):
    """Likewise, for the rows of a layer and for probes."""

    name = "test-layer-answers"
    answer: Callable[[StepView], Any] = field(default=lambda view: view.everything)
    probed: Callable[[StepView], Any] = field(default=lambda view: None)

    def probe(self, view: StepView) -> Any:
        return self.probed(view)

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        answer: Tensor = self.answer(view)
        return answer


def divide_by_zero(view: StepView) -> Selection:
    return Selection(view.in_block, 1 // 0)  # type: ignore[arg-type]


ANSWERS = {
    "a tensor": (lambda view: view.in_block, r"Answers\.select returned bool \(3, 16\); expected a Selection"),
    "nothing": (lambda view: None, r"Answers\.select returned NoneType; expected a Selection"),
    "no tensor": (lambda view: Selection([True]), r"Answers\.select returned list; expected bool \(3, 16\)"),
    "wrong dtype": (
        lambda view: Selection(view.in_block.float()),
        r"Answers\.select returned float32 \(3, 16\); expected bool \(3, 16\)",
    ),
    "wrong shape": (
        lambda view: Selection(view.in_block[:, 1:]),
        r"Answers\.select returned bool \(3, 15\); expected bool \(3, 16\)",
    ),
    "one sequence for all": (lambda view: Selection(view.in_block[0]), r"returned bool \(16,\); expected bool"),
    "refresh of wrong dtype": (
        lambda view: Selection(view.in_block, view.tokens),
        r"Answers\.select \(refresh\) returned int64 \(3, 16\); expected bool",
    ),
    "visible of wrong shape": (
        lambda view: Selection(view.in_block, visible=view.in_block[:2]),
        r"Answers\.select \(visible\) returned bool \(2, 16\); expected bool \(3, 16\)",
    ),
    "visible nothing": (
        lambda view: Selection(view.in_block, visible=view.is_valid & (view.sequence != 1)[:, None]),
        r"no visible key at all in sequences \[1\] at step 1",
    ),
    "visible padding": (
        lambda view: Selection(view.in_block, visible=~view.is_valid | (view.sequence != 0)[:, None]),
        r"no visible key at all in sequences \[0\]",
    ),
    "priority of wrong dtype": (
        lambda view: Selection(view.in_block, priority=view.age),
        r"Answers\.select \(priority\) returned int64 \(3, 16\); expected float32",
    ),
    "memory of wrong shape": (
        lambda view: Selection(view.in_block, remember={"mine": torch.zeros(2)}),
        r"\(remember\['mine'\]\) returned float32 \(2,\); expected a tensor \(3, 16, '...'\)",
    ),
    "memory of wrong type": (
        lambda view: Selection(view.in_block, remember=[view.tokens]),
        r"Answers\.select \(remember\) returned list; expected a mapping",
    ),
    "an exception": (divide_by_zero, r"Answers\.select raised ZeroDivisionError in step 1: integer division"),
    "a signal not asked for": (
        lambda view: Selection(view.in_block & (view.signals["attention_rollout"] > 0)),
        r"Answers\.select raised KeyError in step 1: 'attention_rollout'",
    ),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_an_invalid_answer_is_a_policy_error(what: str) -> None:
    answer, message = ANSWERS[what]
    with pytest.raises(PolicyError, match=message) as caught:
        uneven_problem().run(Answers(answer))
    partial = caught.value.partial
    assert partial is not None
    assert len(partial.trace) == 1, "what was decoded before is kept"
    assert torch.equal(partial.trace[0].tokens, uneven_problem().run("none").trace[0].tokens)


def test_the_exception_of_a_policy_is_the_cause_of_the_error() -> None:
    with pytest.raises(PolicyError) as caught:
        uneven_problem().run(Answers(divide_by_zero))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


LAYER_ANSWERS = {
    "rows of wrong dtype": (
        {"answer": lambda view: view.tokens},
        r"select_layer returned int64 \(3, 16\); expected bool",
    ),
    "rows of wrong shape": ({"answer": lambda view: view.in_block[0]}, r"select_layer returned bool \(16,\)"),
    "no rows": ({"answer": lambda view: None}, r"select_layer returned NoneType; expected bool \(3, 16\)"),
    "an exception": ({"answer": divide_by_zero}, r"select_layer raised ZeroDivisionError in step 1"),
    "probes of wrong dtype": ({"probed": lambda view: view.age}, r"probe returned int64 \(3, 16\); expected bool"),
    "probes that raise": ({"probed": divide_by_zero}, r"probe raised ZeroDivisionError in step 1"),
}


@pytest.mark.parametrize("what", LAYER_ANSWERS)
def test_an_invalid_answer_for_a_layer_is_a_policy_error(what: str) -> None:
    answers, message = LAYER_ANSWERS[what]
    with pytest.raises(PolicyError, match=rf"LayerAnswers\.{message}"):
        uneven_problem().run(LayerAnswers(**answers))


@frozen
class LayersApart(LayerwisePolicy):
    """Probes layer by layer, with ages."""

    name = "test-layers-apart"

    def probe_layer(self, view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
        return view.age if layer == layers - 1 else None

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.everything


def test_invalid_probes_of_one_layer_are_a_policy_error() -> None:
    with pytest.raises(PolicyError, match=r"LayersApart\.probe_layer returned int64 \(3, 16\); expected bool"):
        uneven_problem().run(LayersApart())


@pytest.mark.parametrize(
    ("name", "choices"), [("predicts", "'carried' or 'refreshed'"), ("probes", "'values' or 'hidden_states'")]
)
def test_a_choice_that_does_not_exist_is_a_policy_error_before_any_work(name: str, choices: str) -> None:
    policy = type("Chooses", (LayerAnswers,), {name: "all"})()
    with pytest.raises(PolicyError, match=rf"Chooses\.{name} is 'all'; expected {choices}\.") as caught:
        uneven_problem().run(policy)
    assert caught.value.partial is None


@frozen
class Misspelt(CachePolicy):
    """Declares a need that does not exist."""

    name = "test-misspelt"
    needs = frozenset({"atention_rollout"})

    def select(self, view: StepView) -> Selection:
        return Selection(view.everything)


def test_a_need_that_does_not_exist_is_named() -> None:
    with pytest.raises(PolicyError, match=r"Misspelt.*'?atention_rollout'?.*attention_rollout"):
        uneven_problem().run(Misspelt())


@frozen
class Leaves(Decoder):
    """The first sequence is decided at once, the others a token at a time."""

    name = "test-leaves"

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        first = prediction.positions.long().cumsum(dim=1) == 1
        return Commit(prediction.positions & (first | (view.sequence == 0)[:, None]), prediction.tokens)


def test_an_error_that_names_sequences_uses_their_numbers_in_the_batch_of_the_caller() -> None:
    """The first sequence has finished and left the batch when the last goes blind."""

    def blind_last(view: StepView) -> Selection:
        visible = view.everything
        if view.step >= 6:
            visible &= (view.sequence != 2)[:, None]
        return Selection(view.everything, visible=visible)

    with pytest.raises(PolicyError, match=r"in sequences \[2\]"):
        uneven_problem().evolve(block_length=12).run(Answers(blind_last), Leaves())
