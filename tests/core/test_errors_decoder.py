"""A decoder that answers with something invalid is told what it returned; NaN logits are named as such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from attrs import field, frozen
from torch import Tensor

import freshkv
from freshkv import Commit, Decoder, Prediction, StepView
from freshkv.core.distribution import Distribution
from freshkv.core.errors import DecoderError, NumericalError
from freshkv.core.sampling import Sampling
from freshkv.decoders.confidence import ConfidenceDecoder
from freshkv.testing import NetworkShape, WatchedNetwork, tiny_network
from tests.core.support import DECODERS
from tests.core.test_properties_batch import uneven_problem


def leftmost(prediction: Prediction) -> Tensor:
    return prediction.positions & (prediction.positions.long().cumsum(dim=1) == 1)


@frozen
class Answers(Decoder):
    """Answers as it is told from the second step on."""

    name = "test-answers"
    revocable: ClassVar[bool] = False
    answer: Callable[[StepView, Prediction], Any] = field()

    def decode(self, view: StepView, prediction: Prediction) -> Any:
        if view.step == 0:
            return Commit(leftmost(prediction), prediction.tokens)
        return self.answer(view, prediction)


@frozen
class RevocableAnswers(Answers):
    """The same, allowed to mask again."""

    name = "test-revocable-answers"
    revocable = True


def commits(change: Callable[[StepView, Prediction], dict[str, Any]]) -> Callable[[StepView, Prediction], Commit]:
    """A good commit but for ``change``."""

    def answer(view: StepView, prediction: Prediction) -> Commit:
        good = {"positions": leftmost(prediction), "tokens": prediction.tokens}
        return Commit(**{**good, **change(view, prediction)})

    return answer


def but_in_sequence(number: int, good: Tensor, bad: Tensor, view: StepView) -> Tensor:
    return torch.where((view.sequence == number)[:, None], bad, good)


def raise_it(view: StepView, prediction: Prediction) -> Commit:
    raise IndexError("no such thing")


MISDEEDS: dict[str, tuple[Callable[[StepView, Prediction], Any], str]] = {
    "nothing": (
        commits(lambda view, p: {"positions": but_in_sequence(1, leftmost(p), view.nothing, view)}),
        r"decode committed nothing in sequence 1 at step 1; expected at least one position",
    ),
    "a position outside the block": (
        commits(lambda view, p: {"positions": view.is_masked, "tokens": torch.ones_like(p.tokens)}),
        r"not predicted, not masked or outside the active block, in sequence 0, 1, 2 at step 1; "
        r"choose among prediction\.positions",
    ),
    "a decided position": (
        commits(lambda view, p: {"positions": ~view.is_masked & view.in_block, "tokens": torch.ones_like(p.tokens)}),
        r"committed positions that were not predicted, not masked",
    ),
    "a prompt position": (
        commits(lambda view, p: {"positions": leftmost(p) | view.is_prompt, "tokens": torch.ones_like(p.tokens)}),
        r"committed positions that were not predicted, not masked",
    ),
    "the mask token": (
        commits(lambda view, p: {"tokens": torch.full_like(p.tokens, 32)}),
        r"committed the mask token or an id outside 0 to 32, in sequence 0, 1, 2 at step 1",
    ),
    "an id beyond the vocabulary": (commits(lambda view, p: {"tokens": p.tokens + 33}), r"an id outside 0 to 32"),
    "a negative id": (commits(lambda view, p: {"tokens": p.tokens - 40}), r"an id outside 0 to 32"),
    "positions of wrong dtype": (
        commits(lambda view, p: {"positions": leftmost(p).long()}),
        r"decode \(positions\) returned int64 \(3, 16\); expected bool \(3, 16\)",
    ),
    "positions of wrong shape": (
        commits(lambda view, p: {"positions": leftmost(p)[:, 4:]}),
        r"decode \(positions\) returned bool \(3, 12\); expected bool \(3, 16\)",
    ),
    "tokens of wrong dtype": (
        commits(lambda view, p: {"tokens": p.tokens.int()}),
        r"decode \(tokens\) returned int32 \(3, 16\); expected int64",
    ),
    "tokens of wrong shape": (
        commits(lambda view, p: {"tokens": p.tokens[leftmost(p)]}),
        r"decode \(tokens\) returned int64 \(3,\); expected int64 \(3, 16\)",
    ),
    "no commit": (lambda view, p: leftmost(p), r"decode returned bool \(3, 16\); expected a Commit"),
    "remask without being revocable": (
        commits(lambda view, p: {"remask": view.nothing}),
        r"masks tokens again; a decoder that does so must say revocable = True",
    ),
    "memory of wrong shape": (
        commits(lambda view, p: {"remember": {"mine": torch.zeros(3)}}),
        r"\(remember\['mine'\]\) returned float32 \(3,\)",
    ),
    "an exception": (raise_it, r"decode raised IndexError in step 1: no such thing"),
}


@pytest.mark.parametrize("what", MISDEEDS)
def test_a_misdeed_is_a_decoder_error(what: str) -> None:
    answer, message = MISDEEDS[what]
    with pytest.raises(DecoderError, match=rf"^Answers\.{message}|^Answers.*{message}") as caught:
        uneven_problem().run("none", Answers(answer))
    partial = caught.value.partial
    assert partial is not None
    assert len(partial.trace) == 1
    assert int(partial.trace[0].committed.sum()) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda view, p: {"remask": view.is_masked & view.in_block}, r"masked positions that were not decided"),
        (lambda view, p: {"remask": view.is_prompt}, r"not decided or lie outside the active block"),
        (lambda view, p: {"remask": view.tokens}, r"decode \(remask\) returned int64 \(3, 16\); expected bool"),
    ],
)
def test_a_revocable_decoder_masks_only_decided_positions_of_the_active_block(change: Any, message: str) -> None:
    with pytest.raises(DecoderError, match=message):
        uneven_problem().run("none", RevocableAnswers(commits(change)))


def test_a_revocable_decoder_verifies_the_active_block_only() -> None:
    class Astray(RevocableAnswers):
        def verify(self, view: StepView) -> Tensor:
            return view.is_prompt

    with pytest.raises(DecoderError, match=r"Astray\.verify named positions outside the active block"):
        uneven_problem().run("none", Astray(commits(lambda view, prediction: {})))


class Broken(WatchedNetwork):
    """The logits are NaN once it is told so."""

    broken = False

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        if self.broken:
            logits[0, 7] = float("nan")
        return logits


BY_STEPS = (
    "autoregressive:threshold=1",
    "threshold:threshold=1",
    "confidence:score=random",
    "confidence:score=entropy",
)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_k=3), Sampling(top_p=0.5)])
@pytest.mark.parametrize("decoder", [*DECODERS, *BY_STEPS])
def test_nan_logits_are_a_numerical_error_that_keeps_the_steps_before(decoder: str, sampling: Sampling) -> None:
    problem = uneven_problem().evolve(sampling=sampling, block_length=12)
    plain = problem.run("none", decoder)
    sound = min(2, len(plain.trace) - 1)
    network = Broken(problem.network)
    steps: list[freshkv.StepRecord] = []

    def break_it(step: freshkv.StepRecord) -> None:
        steps.append(step)
        network.broken = len(steps) >= sound

    network.broken = sound == 0
    with pytest.raises(NumericalError, match=rf"logits are NaN in sequence .* at step {sound}.*'partial'") as caught:
        problem.run("none", decoder, network=network, on_step=break_it)
    partial = caught.value.partial
    assert partial is not None
    assert len(partial.trace) == partial.stats.forwards == sound
    for one, other in zip(partial.trace, plain.trace, strict=False):
        assert torch.equal(one.tokens, other.tokens)


def test_nan_weights_are_found_in_the_first_step() -> None:
    class Damaged(WatchedNetwork):
        def embed_rows(self, tokens: Tensor) -> Tensor:
            return super().embed_rows(tokens) * float("nan")

    problem = uneven_problem()
    with pytest.raises(NumericalError, match="damaged checkpoint") as caught:
        problem.run("none", network=Damaged(problem.network))
    partial = caught.value.partial
    assert partial is not None
    assert len(partial.trace) == 0
    assert partial.stats.tokens_per_forward == 0
    assert torch.equal(partial.sequences[:, 4:], torch.full((3, 12), 32))


def test_an_error_of_the_network_itself_is_not_dressed_up() -> None:
    class OutOfMemory(WatchedNetwork):
        def feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
            raise MemoryError("too large")

    with pytest.raises(MemoryError, match="too large"):
        freshkv.generate(OutOfMemory(tiny_network(NetworkShape())), torch.tensor([[1]]), gen_length=2)


def test_a_score_that_fails_names_the_decoder():
    class Stumbles(ConfidenceDecoder):
        def score_tokens(self, distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
            raise ZeroDivisionError("no tokens")

    class Misshapen(ConfidenceDecoder):
        def score_tokens(self, distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
            return tokens

    problem = uneven_problem()
    with pytest.raises(DecoderError, match=r"Stumbles.score_tokens raised ZeroDivisionError: no tokens"):
        problem.run(decoder=Stumbles())
    with pytest.raises(DecoderError, match=r"Misshapen.score_tokens returned int64 .*; expected float32"):
        problem.run(decoder=Misshapen())
