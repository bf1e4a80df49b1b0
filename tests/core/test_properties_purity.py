"""Property 6: nothing that is handed out is ever changed; nothing that was never written is ever read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest
import torch
from attrs import evolve, frozen
from hypothesis import given
from torch import Tensor

import freshkv
from freshkv import CachePolicy, Commit, Decoder, LayerView, LayerwisePolicy, Prediction, Selection, StepView
from freshkv.core.errors import DecoderError, PolicyError
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.testing import Problem, wrapped
from freshkv.testing.strategies import problems
from tests.core.support import POLICIES, any_decoder, assert_same_run, examples, policies_of
from tests.core.test_properties_batch import uneven_problem


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors that a view, a prediction or an argument holds."""
    if isinstance(value, Tensor):
        yield value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_of(part)
    elif hasattr(value, "logits"):
        yield value.logits
        yield value.mask_logit


class Spy:
    """Keeps what every call was handed and a clone of it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Tensor, Tensor]] = []

    def __call__(self, original: Any) -> Any:
        def method(*arguments: Any) -> Any:
            for argument in arguments:
                for tensor in tensors_of(argument):
                    self.seen.append((original.__name__, tensor, tensor.clone()))
            return original(*arguments)

        return method

    def assert_unchanged(self) -> None:
        assert self.seen
        for method, tensor, clone in self.seen:
            assert torch.equal(tensor.nan_to_num(7), clone.nan_to_num(7)), f"what {method} was handed has changed"


@pytest.mark.parametrize("name", POLICIES)
def test_what_policies_and_decoders_are_handed_never_changes_not_even_later(name: str) -> None:
    @examples(20)
    @given(problems(), policies_of(name), any_decoder())
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        spy = Spy()
        methods = ["select", "probe", "select_layer"] if isinstance(policy, LayerwisePolicy) else ["select"]
        problem.run(
            wrapped(policy, **dict.fromkeys(methods, spy)),
            wrapped(decoder, decode=spy, score_tokens=spy),
            on_step=lambda _: spy.assert_unchanged(),
        )
        spy.assert_unchanged()

    check()


def test_the_prompt_that_is_handed_in_and_the_result_share_no_memory() -> None:
    problem = uneven_problem()
    prompt = problem.input_ids.clone()
    run = problem.run("none", "confidence")
    run.sequences.zero_()
    assert torch.equal(problem.input_ids, prompt)
    assert torch.equal(run.trace[-1].tokens[:, :4], prompt)


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_that_was_never_written_is_read(name: str) -> None:
    @examples(20)
    @given(problems(), policies_of(name), any_decoder())
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        poisoned, clean = problem.run(policy, decoder, poison=True), problem.run(policy, decoder, poison=False)
        assert_same_run(poisoned, clean)
        for one, other in zip(poisoned.trace, clean.trace, strict=True):
            assert torch.equal(one.confidence, other.confidence)
            assert torch.equal(one.refreshed, other.refreshed)

    check()


WRITES = {
    "tokens": lambda view: view.tokens.fill_(1),
    "dirty": lambda view: view.dirty.logical_not_(),
    "confidence": lambda view: view.confidence.zero_(),
    "in_block": lambda view: view.in_block.__setitem__(slice(None), True),
    "a slice of tokens": lambda view: view.tokens[:, -1:].add_(1),
    "is_valid": lambda view: view.is_valid.zero_(),
    "memory": lambda view: view.memory["noted"].zero_(),
    "signals": lambda view: view.signals["attention_rollout"].zero_(),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_policy_that_writes_to_its_view_raises_policy_error(what: str) -> None:
    def write(original: Any) -> Any:
        def select(view: StepView) -> Selection:
            selection = original(view)
            if view.step > 0:
                WRITES[what](view)
            return evolve(selection, remember={"noted": torch.ones(view.shape)})

        return select

    with pytest.raises(PolicyError, match=r"D2Cache\.select wrote to view\..*read-only: clone it") as caught:
        uneven_problem().run(wrapped(resolve_policy("d2cache"), select=write))
    assert what.removeprefix("a slice of ") in str(caught.value)


def test_a_policy_that_writes_to_the_movement_raises_policy_error() -> None:
    def write(original: Any) -> Any:
        def select_layer(view: StepView, layer: LayerView) -> Tensor:
            rows = original(view, layer)
            layer.movement.zero_()
            return rows

        return select_layer

    with pytest.raises(PolicyError, match=r"DLLMCache\.select_layer wrote to layer\.movement"):
        uneven_problem().run(wrapped(resolve_policy("dllm:kr=3"), select_layer=write))


@pytest.mark.parametrize("what", ["tokens", "confidence", "positions", "logits"])
def test_a_decoder_that_writes_to_its_prediction_raises_decoder_error(what: str) -> None:
    def write(original: Any) -> Any:
        def decode(view: StepView, prediction: Prediction) -> Commit:
            commit = original(view, prediction)
            getattr(prediction, what)[:1] = 0
            return commit

        return decode

    with pytest.raises(DecoderError, match=rf"ConfidenceDecoder\.decode wrote to prediction\.{what}"):
        uneven_problem().run("none", wrapped(resolve_decoder("confidence"), decode=write))


@frozen
class ValidRows(LayerwisePolicy):
    """Answers with a tensor of its view, the same in every layer and step."""

    name = "test-valid-rows"

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.is_valid


def test_a_record_that_is_changed_by_its_receiver_does_not_change_the_run() -> None:
    def spoil(record: freshkv.StepRecord) -> None:
        for name in ("tokens", "committed", "refreshed", "confidence"):
            getattr(record, name).zero_()

    problem = uneven_problem()
    for policy in ("none", "d2cache:current_k=2", ValidRows()):
        assert torch.equal(problem.run(policy, on_step=spoil).sequences, problem.run(policy).sequences)
