"""Policies and decoders that each break one invariant."""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import torch
from attrs import field, frozen
from torch import Tensor

from freshkv import CachePolicy, Commit, Decoder, LayerView, LayerwisePolicy, Prediction, Selection, StepView, best


class Broken(CachePolicy):
    """The base of what follows."""

    name = "broken"

    def select(self, view: StepView) -> Selection:
        return Selection(predict=view.in_block, refresh=self.refresh(view))

    def refresh(self, view: StepView) -> Tensor:
        return view.dirty


@frozen
class Whole(Broken):
    """Not broken at all."""

    name = "whole"


@frozen
class WrongDtype(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return view.dirty.float()


@frozen
class WrongShape(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return view.dirty[:, 1:]


@frozen
class ForgetsTheFirstStep(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return view.memory["noted"].bool()


@frozen
class Writes(Broken):
    def refresh(self, view: StepView) -> Tensor:
        view.dirty[:, -1] = ~view.dirty[:, -1]
        return view.dirty.clone()


@frozen
class WritesUnseen(Broken):
    """Numpy shares the memory and counts no versions."""

    def refresh(self, view: StepView) -> Tensor:
        view.age.numpy()[:] += 1
        return view.dirty


@frozen
class Dice(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return torch.rand(view.shape) < 0.5


@frozen
class KeepsState(Broken):
    """Notes the prompt in the first step, for all runs."""

    noted: ClassVar[dict[str, bool]] = {"odd": False}

    def refresh(self, view: StepView) -> Tensor:
        if view.step == 0:
            self.noted["odd"] = bool((view.tokens * view.is_prompt).sum() % 2)
        return view.everything if self.noted["odd"] else view.nothing


@frozen
class LooksAtNeighbours(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return view.dirty.any(dim=0, keepdim=True).expand(view.shape)


@frozen
class FavoursTheFirst(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return (view.sequence == 0)[:, None].expand(view.shape)


@frozen
class CountsPadding(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return (torch.arange(view.shape[1]) % 2 == 0).expand(view.shape)


@frozen
class StaysOnTheHost(Broken):
    def refresh(self, view: StepView) -> Tensor:
        return view.is_valid & torch.ones(view.shape[1]).bool()


@frozen
class HidesInSecret(CachePolicy):
    name = "hides-in-secret"

    def select(self, view: StepView) -> Selection:
        return Selection(predict=view.in_block, visible=view.is_prompt | view.in_block)


@frozen
class DrawsFromTheOpen(CachePolicy):
    """Takes it for granted that the block holds an open position."""

    name = "draws-from-the-open"
    plans_ahead = True

    def select(self, view: StepView) -> Selection:
        for undecided in view.is_open & view.in_block:
            undecided.nonzero()[0]
        return Selection(predict=view.in_block)


@frozen
class Idle(CachePolicy):
    """Predicts nothing and never refreshes: lazy, but within its rights."""

    name = "idle"

    def select(self, view: StepView) -> Selection:
        return Selection(predict=view.nothing)


@frozen
class Tunnel(CachePolicy):
    """Sees the block alone, from the first step on: short-sighted, but within its rights."""

    name = "tunnel"
    hides_keys = True

    def select(self, view: StepView) -> Selection:
        return Selection(predict=view.in_block, visible=view.in_block)


@frozen
class Prober(LayerwisePolicy):
    """Probes everything, and refreshes everything whatever it learns."""

    name = "prober"

    def probe(self, view: StepView) -> Tensor | None:
        return view.everything

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.everything


@frozen
class ProbesNumbers(LayerwisePolicy):
    """Probes by layer, with columns where a mask is expected."""

    name = "probes-numbers"

    def probe_layer(self, view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
        return below.long() if layer > 0 else None

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.everything


@frozen
class ProbesInPlace(LayerwisePolicy):
    """Probes by layer, and counts in the rows of the layer below."""

    name = "probes-in-place"

    def probe_layer(self, view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
        return below.logical_not_()

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.everything


@frozen
class WatchesFloats(LayerwisePolicy):
    name = "watches-floats"
    needs = frozenset({"attention_drift"})

    def select(self, view: StepView) -> Selection:
        return Selection(view.in_block, watch=view.confidence)

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.everything


@frozen
class Grows(Broken):
    """Its option changes whenever it is read back."""

    name = "grows"
    size: int = field(default=3, converter=lambda value: int(value) + 1)


@attrs.define
class Changeable(Broken):
    name = "changeable"
    size: int = 3


POLICIES: dict[type[Any], tuple[str, str]] = {
    WrongDtype: ("every_answer_has_the_right_form", "WrongDtype.select (refresh) returned float32"),
    WrongShape: ("every_answer_has_the_right_form", "WrongShape.select (refresh) returned bool"),
    ForgetsTheFirstStep: ("every_answer_has_the_right_form", "raised KeyError in step 0: 'noted'"),
    Writes: ("nothing_that_it_is_handed_is_written_to", "Writes.select wrote to view.dirty"),
    WritesUnseen: ("nothing_that_it_is_handed_is_written_to", "WritesUnseen.select wrote to view.age"),
    Dice: ("the_same_question_gets_the_same_answer", "Dice.select gave another answer when it was asked the same"),
    KeepsState: ("it_keeps_no_state_between_calls_and_runs", "KeepsState.select gave another answer for the same view"),
    LooksAtNeighbours: ("a_sequence_does_not_depend_on_its_batch", "other rows are refreshed in step"),
    FavoursTheFirst: ("a_sequence_does_not_depend_on_its_batch", "treats sequence 1 otherwise than by itself"),
    CountsPadding: ("padding_changes_nothing", "CountsPadding answers otherwise without the padding"),
    StaysOnTheHost: (
        "its_tensors_lie_where_those_of_the_run_do",
        "on the host. (saboteurs.py, line ",
    ),
    HidesInSecret: ("it_says_that_it_hides_keys", "HidesInSecret says what is visible in "),
    DrawsFromTheOpen: (
        "asked_early_it_answers_and_decides_the_same",
        "Asked early, DrawsFromTheOpen.select raised IndexError in step ",
    ),
    ProbesNumbers: ("every_answer_has_the_right_form", "ProbesNumbers.probe_layer returned int64"),
    ProbesInPlace: ("nothing_that_it_is_handed_is_written_to", "ProbesInPlace.probe_layer wrote to"),
    WatchesFloats: ("every_answer_has_the_right_form", "WatchesFloats.select (watch) returned float32"),
    Prober: ("it_never_computes_more_than_the_uncached_run", "times as much as the uncached run"),
    Grows: ("its_spec_string_gives_it_back", "Grows(size=4) is written 'grows:size=4', which reads as Grows(size=5)"),
    Changeable: ("its_options_cannot_change", "Changeable.size can be set after the object was built"),
}


def leftmost(prediction: Prediction, count: int | Tensor) -> Tensor:
    """The first predicted positions of each sequence."""
    return prediction.positions & (prediction.positions.long().cumsum(dim=1) <= count)


class BrokenDecoder(Decoder):
    """The base of what follows."""

    name = "broken-decoder"

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        return Commit(self.choose(view, prediction), prediction.tokens)

    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return leftmost(prediction, 1)


@frozen
class ShortTokens(BrokenDecoder):
    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        return Commit(leftmost(prediction, 1), prediction.tokens.int())


@frozen
class Raises(BrokenDecoder):
    def score_tokens(self, distribution: Any, tokens: Tensor, noise: Tensor) -> Tensor:
        raise RuntimeError("out of ideas")


@frozen
class WritesToPrediction(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        chosen = leftmost(prediction, 1)
        prediction.confidence.masked_fill_(chosen, -1.0)
        return chosen


@frozen
class GlobalDice(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return best(torch.rand(view.shape), prediction.positions, 1)


@frozen
class KeepsStateToo(BrokenDecoder):
    noted: ClassVar[dict[str, bool]] = {"odd": False}

    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        if view.step == 0:
            self.noted["odd"] = bool((view.tokens * view.is_prompt).sum() % 2)
        return leftmost(prediction, 2 if self.noted["odd"] else 1)


@frozen
class LeavesTheBlock(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return view.is_masked


@frozen
class CommitsUnpredicted(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return view.in_block & view.is_masked


@frozen
class CommitsNothing(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return prediction.positions & (prediction.confidence > 2)


@frozen
class CommitsMasks(BrokenDecoder):
    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        mask = view.tokens[view.is_masked][0]
        return Commit(leftmost(prediction, 1), torch.full_like(prediction.tokens, int(mask)))


@frozen
class RemasksUnasked(BrokenDecoder):
    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        return Commit(leftmost(prediction, 1), prediction.tokens, remask=view.nothing)


@frozen
class RemasksThePrompt(BrokenDecoder):
    revocable = True

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        return Commit(leftmost(prediction, 1), prediction.tokens, remask=view.is_prompt)


@frozen
class Flips(BrokenDecoder):
    revocable = True

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        return Commit(leftmost(prediction, 1), prediction.tokens, remask=view.in_block & ~view.is_masked)


@frozen
class StumblesOverEos(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        if bool((view.is_masked & ~view.is_open).any()):
            raise IndexError("more masks than expected")
        return best(prediction.confidence, prediction.positions, 1)


@frozen
class BorrowsNoise(BrokenDecoder):
    needs = frozenset({"noise"})

    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return best(prediction.noise[:1].expand(view.shape), prediction.positions, 1)


@frozen
class TiesUpward(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return best(prediction.confidence.flip(1), prediction.positions.flip(1), 1).flip(1)


@frozen
class ComparesWithNeighbours(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        surest = prediction.positions & (prediction.confidence >= prediction.confidence.max())
        return surest | leftmost(prediction, 1)


@frozen
class ChoosesOnTheHost(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        return leftmost(prediction, torch.ones(view.shape[0], 1).long())


@frozen
class CountsColumns(BrokenDecoder):
    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        first = prediction.positions.long().argmax(dim=1, keepdim=True)
        return leftmost(prediction, 1 + first % 2)


@frozen
class LooksAtThePolicy(BrokenDecoder):
    """What is known beyond the block depends on what the policy asks for."""

    def choose(self, view: StepView, prediction: Prediction) -> Tensor:
        known = (view.confidence > -torch.inf) & view.is_masked & ~view.in_block
        return leftmost(prediction, 1 + known.any(dim=1, keepdim=True).long())


@frozen
class GrowsToo(BrokenDecoder):
    name = "grows-too"
    size: int = field(default=3, converter=lambda value: int(value) + 1)


@attrs.define
class ChangeableToo(BrokenDecoder):
    name = "changeable-too"
    size: int = 3


_ELSEWHERE = "only_predicted_masked_positions_of_the_active_block_are_committed"
_REMASK = "only_decided_positions_of_the_active_block_are_masked_again"
DECODERS: dict[type[Any], tuple[str, str]] = {
    ShortTokens: ("every_answer_has_the_right_form", "ShortTokens.decode (tokens) returned int32"),
    Raises: ("every_answer_has_the_right_form", "Raises.score_tokens raised RuntimeError: out of ideas"),
    WritesToPrediction: ("nothing_that_it_is_handed_is_written_to", "wrote to prediction.confidence"),
    GlobalDice: ("the_same_question_gets_the_same_answer", "GlobalDice.decode gave another answer"),
    KeepsStateToo: (
        "it_keeps_no_state_between_calls_and_runs",
        "KeepsStateToo.decode gave another answer for the same",
    ),
    LeavesTheBlock: (_ELSEWHERE, "which lies outside the active block"),
    CommitsUnpredicted: (_ELSEWHERE, "which was not predicted in this step"),
    CommitsNothing: ("every_step_commits_at_least_one_position_of_every_sequence", "committed nothing"),
    CommitsMasks: ("the_mask_token_is_never_committed", "committed the mask token at column"),
    RemasksUnasked: (_REMASK, "must say revocable = True"),
    RemasksThePrompt: (_REMASK, "which was not decided or lies outside the active block"),
    Flips: ("a_run_ends_with_every_position_decided", "has not decided"),
    StumblesOverEos: ("a_sequence_that_meets_eos_ends_there_and_is_filled_with_it", "more masks than expected"),
    BorrowsNoise: ("random_numbers_come_from_the_seed_of_the_sequence_alone", "random numbers of the others changed"),
    TiesUpward: ("ties_go_to_the_lower_position", "whose prediction is the same"),
    ComparesWithNeighbours: ("a_sequence_does_not_depend_on_its_batch", "otherwise than by itself"),
    ChoosesOnTheHost: ("its_tensors_lie_where_those_of_the_run_do", "on the host. (saboteurs.py, line "),
    CountsColumns: ("padding_changes_nothing", "answers otherwise without the padding"),
    LooksAtThePolicy: ("with_every_built_in_policy_fully_refreshed_it_is_the_uncached_run", "is another run"),
    GrowsToo: ("its_spec_string_gives_it_back", "reads as GrowsToo(size=5)"),
    ChangeableToo: ("its_options_cannot_change", "ChangeableToo.size can be set"),
}
