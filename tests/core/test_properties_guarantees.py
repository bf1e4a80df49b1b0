"""What the core guarantees whatever a policy answers, and that the facts in a view are facts."""

from __future__ import annotations

import pytest
import torch
from attrs import field, frozen
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

import freshkv
from freshkv import CachePolicy, Commit, Decoder, LayerView, LayerwisePolicy, Prediction, Selection, StepView
from freshkv.core.shift import positions_read_from
from freshkv.testing import NetworkShape, Problem, wrapped
from freshkv.testing.strategies import left_padded, problems
from tests.core.support import any_final_decoder, any_policy, examples
from tests.core.test_properties_batch import Uneven, assert_same_alone, uneven_problem


@frozen
class Lazy(CachePolicy):
    """Selects nothing."""

    name = "test-lazy"

    def select(self, view: StepView) -> Selection:
        return Selection(predict=view.nothing)


@frozen
class LazyLayers(LayerwisePolicy):
    """Refreshes nothing in any layer."""

    name = "test-lazy-layers"

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.nothing


@frozen
class Random(CachePolicy):
    """Any rows, a function of the sequence's step and position alone."""

    name = "test-random"
    salt: int = field(default=0)

    def choose(self, view: StepView, kind: int) -> Tensor:
        column = view.is_valid.long().cumsum(dim=1)
        return ((column * 7919 + view.step * 104729 + self.salt * 31 + kind * 1299709) % 101) < 35

    def select(self, view: StepView) -> Selection:
        visible = self.choose(view, 2) | view.in_block if self.salt % 2 else None
        return Selection(self.choose(view, 0), self.choose(view, 1) & view.is_valid, visible=visible)


@frozen
class RandomLayers(LayerwisePolicy):
    """Any rows in any layer, any probes of any kind, and any watched rows."""

    name = "test-random-layers"
    needs = frozenset({"attention_drift"})
    salt: int = field(default=0)

    @property
    def predicts(self) -> str:
        return ("carried", "refreshed")[self.salt % 2]

    @property
    def probes(self) -> str:
        return ("values", "hidden_states")[self.salt // 2 % 2]

    @property
    def probe_stores(self) -> bool:
        return self.salt // 4 % 2 == 0

    def select(self, view: StepView) -> Selection:
        return Selection(Random(self.salt).choose(view, 0), watch=Random(self.salt).choose(view, 1))

    def probe_layer(self, view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
        assert not bool(below.any()) or layer > 0
        return None if (self.salt + layer) % 3 == 0 else Random(self.salt).choose(view, 3 + layer) & view.is_valid

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return Random(self.salt).choose(view, 4 + layer.layer) & view.is_valid


ARBITRARY = st.builds(Random, st.integers(0, 50)) | st.builds(RandomLayers, st.integers(0, 50))


@examples(60)
@given(problem=problems(), policy=ARBITRARY | st.sampled_from((Lazy(), LazyLayers())), decoder=any_final_decoder())
def test_whatever_rows_a_policy_names_a_run_ends_and_sequences_stay_independent(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    run = problem.run(policy, decoder)
    assert len(run.trace) <= problem.gen_length
    for layer in range(problem.shape.layers):
        assert bool(run.trace[0].layer(layer).all()), "the first step refreshes everything"
    for sequence in range(problem.batch):
        assert_same_alone(problem, run, sequence, policy, decoder)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_policy_that_selects_nothing_gets_everything_and_then_one_row_and_the_trace_says_so(family: str) -> None:
    problem = uneven_problem().evolve(shape=NetworkShape(family=family))
    run = problem.run(Lazy(), "confidence")
    shift = problem.network.network_spec.logits_shift
    assert bool(run.trace[0].added.all())
    for before, step in zip(run.trace, run.trace[1:], strict=False):
        masked = before.tokens == problem.shape.mask_token_id
        masked[:, : problem.prompt_length] = False
        leftmost = masked.long().argmax(dim=1)
        assert step.added.nonzero().tolist() == [[place, int(column) - shift] for place, column in enumerate(leftmost)]
        assert torch.equal(step.refreshed, step.added)
        assert torch.equal(step.committed.long().argmax(dim=1), leftmost)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_a_layerwise_policy_that_refreshes_nothing_goes_on_from_what_is_cached(family: str) -> None:
    run = uneven_problem().evolve(shape=NetworkShape(family=family)).run(LazyLayers(), "confidence")
    assert len(run.trace) == 12
    assert [step.rows_computed for step in run.trace] == [3 * 16] + [0] * 11


@frozen
class LazyRefreshed(LazyLayers):
    """Refreshes nothing, and lets only what is refreshed be decided."""

    name = "test-lazy-refreshed"
    predicts = "refreshed"


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_where_only_refreshed_rows_predict_the_last_layer_gets_one_and_the_trace_says_so(family: str) -> None:
    problem = uneven_problem().evolve(shape=NetworkShape(family=family))
    run, layers = problem.run(LazyRefreshed(), "confidence"), problem.shape.layers
    shift = problem.network.network_spec.logits_shift
    assert len(run.trace) == 12
    for before, step in zip(run.trace, run.trace[1:], strict=False):
        masked = before.tokens == problem.shape.mask_token_id
        masked[:, : problem.prompt_length] = False
        leftmost = masked.long().argmax(dim=1)
        assert step.added.nonzero().tolist() == [[place, int(column) - shift] for place, column in enumerate(leftmost)]
        assert torch.equal(step.layer(layers - 1), step.added)
        assert not any(bool(step.layer(layer).any()) for layer in range(layers - 1))
        assert torch.equal(step.committed.long().argmax(dim=1), leftmost)


@examples(30)
@given(problem=problems(), salt=st.integers(0, 50).map(lambda number: 2 * number + 1), decoder=any_final_decoder())
def test_where_only_refreshed_rows_predict_decoders_choose_among_named_and_refreshed_positions(
    problem: Problem, salt: int, decoder: Decoder
) -> None:
    named: list[Tensor] = []
    offered: list[tuple[StepView, Tensor]] = []

    def watch_select(original):
        def select(view: StepView) -> Selection:
            selection = original(view)
            named.append(selection.predict)
            return selection

        return select

    def watch_decode(original):
        def decode(view: StepView, prediction: Prediction) -> Commit:
            offered.append((view, prediction.positions))
            return original(view, prediction)

        return decode

    policy = wrapped(RandomLayers(salt), select=watch_select)
    run = problem.alone(0).run(policy, wrapped(decoder, decode=watch_decode))
    shift, last = problem.network.network_spec.logits_shift, problem.shape.layers - 1
    for step, predict, (view, positions) in zip(run.trace, named, offered, strict=True):
        due = view.is_open & view.in_block
        refreshed = positions_read_from(step.layer(last), shift)
        assert torch.equal(step.predicted & view.in_block & view.is_open, positions)
        assert bool(positions.any())
        if bool((due & predict).any()):
            assert torch.equal(positions, due & predict & refreshed)
        else:
            leftmost = due & (due.long().cumsum(dim=1) == 1)
            assert torch.equal(positions, leftmost)


@frozen
class Blinkered(CachePolicy):
    """Sees the prompt and the blocks up to the active one. Names no row but the block's."""

    name = "test-blinkered"

    def select(self, view: StepView) -> Selection:
        active = view.block_index.masked_fill(~view.in_block, -1).amax(dim=1, keepdim=True)
        return Selection(predict=view.in_block, visible=view.block_index <= active)


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("decoder", ["confidence", "wino"])
def test_what_is_hidden_is_computed_in_the_first_step_alone_and_the_trace_says_so(family: str, decoder: str) -> None:
    problem = uneven_problem().evolve(shape=NetworkShape(family=family), block_length=4)
    run = problem.run(Blinkered(), decoder, gathering="auto")
    shift, prompt, column = problem.network.network_spec.logits_shift, problem.prompt_length, torch.arange(16)
    first = run.trace[0]
    named = (column >= prompt - shift) & (column < prompt + 4 - shift)
    assert bool(first.refreshed.all())
    assert torch.equal(first.added, ~named.expand(3, -1))
    assert first.keys.tolist() == [[prompt + 4 - problem.padding(sequence)] for sequence in range(3)]
    for step in run.trace[1:]:
        active = step.committed.long().argmax(dim=1, keepdim=True).sub(prompt).div(4, rounding_mode="floor")
        seen = column < prompt + 4 * (active + 1)
        assert not bool(step.added.any())
        assert not bool((step.refreshed & ~seen).any())
    masked = problem.run(Blinkered(), decoder, gathering="never")
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in masked.trace]


@examples(30)
@given(problem=problems(), policy=any_policy() | st.builds(Random, st.integers(0, 50)) | st.just(Blinkered()))
def test_what_is_refreshed_was_named_or_is_marked_as_added(problem: Problem, policy: CachePolicy) -> None:
    assume(not isinstance(policy, LayerwisePolicy))
    named: list[Tensor] = []

    def watch(original):
        def select(view: StepView) -> Selection:
            selection = original(view)
            rows = view.rows_for(selection.predict)
            named.append(rows if selection.refresh is None else rows | selection.refresh)
            return selection

        return select

    run = problem.alone(0).run(wrapped(policy, select=watch), "confidence")
    for step, rows in zip(run.trace, named, strict=True):
        assert torch.equal(step.refreshed, rows | step.added)
        assert not bool((rows & step.added).any())


@frozen
class Ragged(CachePolicy):
    """As many rows as the first token of a sequence says; those far right are preferred to fill up."""

    name = "test-ragged"

    def select(self, view: StepView) -> Selection:
        first_token = view.tokens.gather(1, view.is_valid.long().argmax(dim=1, keepdim=True))
        column = torch.arange(view.shape[1]).expand(view.shape)
        rows = view.is_valid & (column >= 3) & (column < 4 + first_token % 3)
        return Selection(view.nothing, rows, priority=column.float())


def test_with_a_priority_all_sequences_refresh_as_many_rows_the_best_of_the_others_first() -> None:
    problem = uneven_problem()
    for step in problem.run(Ragged(), "confidence").trace[1:]:
        counts = step.refreshed.sum(dim=1)
        assert len(set(counts.tolist())) == 1, "ragged selections become rectangular"
        # first tokens 9, 1 and 5 (behind the padding): 1, 2 and 3 rows from column 3 on
        wanted = torch.tensor([1, 2, 3])
        column = torch.arange(16)
        for sequence in range(3):
            chosen = (column >= 3) & (column < 3 + wanted[sequence])
            chosen = chosen | step.added[sequence]
            extra = step.refreshed[sequence] & ~chosen
            left_out = ~step.refreshed[sequence]
            assert bool((step.refreshed[sequence] | ~chosen).all())
            assert not bool(extra.any()) or int(column[extra].min()) > int(column[left_out].max())


@examples(40)
@given(problem=problems(), policy=any_policy() | ARBITRARY, decoder=any_final_decoder())
def test_the_facts_in_a_view_are_what_the_trace_says(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    views: list[StepView] = []

    def watch(original):
        def select(view: StepView) -> Selection:
            views.append(view)
            return original(view)

        return select

    alone = problem.alone(0)
    run = alone.run(wrapped(policy, select=watch), decoder)
    assert [view.step for view in views] == list(range(len(run.trace)))
    mask, prompt = problem.shape.mask_token_id, alone.prompt_length
    tokens = torch.cat((alone.input_ids, torch.full((1, alone.gen_length), mask)), dim=1)
    dirty, age = torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(tokens)
    committed_at = torch.full_like(tokens, -1)
    block = (torch.arange(tokens.shape[1]) - prompt).div(alone.block_length, rounding_mode="floor").clamp(min=-1)[None]
    opened = previous_block = 0
    for number, (view, step) in enumerate(zip(views, run.trace, strict=True)):
        masked = (tokens == mask) & (block >= 0)
        active = int(block[masked].min())
        if active != previous_block:
            opened, previous_block = number, active
        assert torch.equal(view.tokens, tokens)
        assert torch.equal(view.is_masked, masked)
        assert torch.equal(view.is_prompt, block < 0)
        assert torch.equal(view.in_block, block == active)
        assert torch.equal(view.block_index, block)
        assert torch.equal(view.dirty, dirty)
        assert torch.equal(view.age, age)
        assert torch.equal(view.committed_at, committed_at)
        assert (view.step_in_block, view.is_block_start) == (number - opened, number == opened)
        assert not bool((view.is_open & ~masked).any())
        if number > 0:
            assert torch.equal(view.confidence, run.trace[number - 1].confidence)
        refreshed = torch.stack([step.layer(layer) for layer in range(problem.shape.layers)]).all(dim=0)
        dirty, age = (dirty & ~refreshed) | step.committed, torch.where(refreshed, 0, age) + 1
        committed_at = committed_at.masked_fill(step.committed, number)
        tokens = step.tokens


@examples(40)
@given(problem=problems(), policy=any_policy(), decoder=any_final_decoder())
def test_the_confidence_in_a_view_is_the_last_one_that_was_predicted(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    known: dict[int, dict[int, float]] = {sequence: {} for sequence in range(problem.batch)}

    def watch(original):
        def decode(view: StepView, prediction: Prediction) -> Commit:
            for place, column in prediction.positions.nonzero().tolist():
                known[int(view.sequence[place])][column] = float(prediction.confidence[place, column])
            for place, sequence in enumerate(view.sequence.tolist()):
                for column, confidence in known[sequence].items():
                    assert float(view.confidence[place, column]) == confidence
                never = [column for column in range(view.shape[1]) if column not in known[sequence]]
                if "confidence" not in policy.needs and "divergence" not in decoder.needs:
                    assert bool((view.confidence[place, never] == -torch.inf).all())
            return original(view, prediction)

        return decode

    problem.run(policy, wrapped(decoder, decode=watch))


@frozen
class Forgetful(CachePolicy):
    """Evicts the prompt's first token after the first step."""

    name = "test-forgetful"

    def select(self, view: StepView) -> Selection:
        visible = view.everything
        visible[:, 0] = False
        return Selection(view.everything, visible=None if view.step == 0 else visible)


@pytest.mark.parametrize("family", ["llada", "dream"])
def test_an_evicted_token_no_longer_matters(family: str) -> None:
    problem = Problem(
        shape=NetworkShape(family=family),
        input_ids=torch.tensor([[3, 5, 6, 7, 1, 2, 9, 4]]),
        is_valid=left_padded((0,), 8),
        gen_length=4,
        block_length=1,
        seeds=(0,),
    )
    evicted = problem.run(Forgetful(), "confidence").trace
    kept = problem.run("none", "confidence").trace
    assert not torch.equal(evicted[1].confidence, kept[1].confidence), "with all tokens the confidence is another"
    others = [problem.evolve(input_ids=torch.tensor([[token, 5, 6, 7, 1, 2, 9, 4]])) for token in range(10, 32)]
    runs = [other.run(Forgetful(), "confidence").trace for other in others]
    # the first step still saw the token, and may have decided otherwise
    same = [run for run in runs if torch.equal(run[0].tokens[:, 8:], evicted[0].tokens[:, 8:])]
    assert same
    for run in same:
        torch.testing.assert_close(run[1].confidence[:, 9], evicted[1].confidence[:, 9])


def test_sequences_at_different_points_are_asked_apart() -> None:
    seen: list[tuple[int, int]] = []

    def watch(original):
        def select(view: StepView) -> Selection:
            assert bool((view.in_block.sum(dim=1) == view.block_length).all())
            seen.append((view.step, view.step_in_block))
            return original(view)

        return select

    policy = wrapped(freshkv.core.registry.resolve_policy("dual"), select=watch)
    uneven_problem().run(policy, Uneven())
    assert len({step for step, _ in seen}) < len(seen), "some steps ask for several groups"


@examples(30)
@given(problem=problems(), data=st.data())
def test_values_move_to_the_rows_that_predict_them_as_positions_do(problem: Problem, data: st.DataObject) -> None:
    seen = 0

    def watch(original):
        def select(view: StepView) -> Selection:
            nonlocal seen
            seen += 1
            some = Random(data.draw(st.integers(0, 50))).choose(view, 9)
            some[:, 0] = False  # all positions would mean all rows
            assert torch.equal(view.to_rows(some, False), view.rows_for(some))
            column = torch.arange(view.shape[1]).float().expand(view.shape)
            moved = view.to_rows(column, -1.0)
            assert torch.equal(moved[some.roll(-shift, dims=1)], column[some]), "by position, at its row"
            assert bool((moved[:, view.shape[1] - shift :] == -1).all())
            return original(view)

        return select

    shift = problem.network.network_spec.logits_shift
    problem.run(wrapped(Lazy(), select=watch))
    assert seen > 0
