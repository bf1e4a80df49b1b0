"""The uncached forward beside a run: the signal ``drift``, and that nothing of the run notices it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import freshkv
from freshkv import CachePolicy, Decoder, LayerView, LayerwisePolicy, Selection, StepView
from freshkv.core.canvas import Canvas
from freshkv.core.generate import run_canvas
from freshkv.core.loop import RunOptions
from freshkv.core.naive import NaiveExecutor
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.truth import Evidence, cosine_distance, relative_norm
from freshkv.testing import Problem
from freshkv.testing.strategies import problems
from tests.core.schedule import stored
from tests.core.support import any_decoder, any_policy, assert_same_run, examples, own_steps


def needing_drift(policy: CachePolicy, seen: list[tuple[StepView, Tensor]]) -> CachePolicy:
    """``policy``, which is shown the drift, too; what it is shown goes to ``seen``."""
    cls: Any = type(policy)

    def select(self: Any, view: StepView) -> Selection:
        answer: Selection = cls.select(self, view)
        seen.append((view, view.signals["drift"]))
        return answer

    watcher = type(cls)(cls.__name__, (cls,), {"select": select, "needs": cls.needs | {"drift"}})
    return watcher(**{name: getattr(policy, name) for name in freshkv.core.spec.describe_fields(cls)})  # type: ignore[no-any-return]


def canvas_of(problem: Problem) -> Canvas:
    return Canvas.create(
        problem.input_ids,
        problem.is_valid,
        problem.gen_length,
        problem.block_length,
        problem.network.network_spec,
        torch.device("cpu"),
        problem.eos_token_id,
    )


def options_of(problem: Problem, policy: CachePolicy, decoder: Decoder) -> RunOptions:
    return RunOptions(policy=policy, decoder=decoder, sampling=problem.sampling, seeds=problem.seeds, poison=True)


@examples(30)
@given(problem=problems(), policy=any_policy(), decoder=any_decoder())
def test_a_run_does_not_notice_the_truth_beside_it(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    plain = problem.run(policy, decoder)
    watched = run_canvas(
        problem.network, canvas_of(problem), options_of(problem, policy, decoder), on_evidence=lambda _: None
    )
    assert_same_run(plain, watched)
    assert [step.rows_by_layer for step in plain.trace] == [step.rows_by_layer for step in watched.trace]
    assert plain.stats.rows_computed == watched.stats.rows_computed


@examples(25)
@given(problem=problems(), policy=any_policy(), decoder=any_decoder())
def test_a_policy_that_asks_for_drift_and_ignores_it_runs_as_ever(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    seen: list[tuple[StepView, Tensor]] = []
    assert_same_run(problem.run(policy, decoder), problem.run(needing_drift(policy, seen), decoder))
    for view, drift in seen:
        assert drift.shape == (view.shape[0], problem.shape.layers, view.shape[1])
        assert drift.dtype == torch.float32
        assert bool((drift[~view.is_valid[:, None].expand_as(drift)] == 0).all()), "padding does not drift"
        assert bool(((drift >= 0) & (drift <= 2)).all())
        if view.step == 0:
            assert not bool(drift.any()), "nothing is cached before the first step"


@examples(30)
@given(problem=problems(), policy=any_policy(), decoder=any_decoder())
def test_in_layer_0_only_rows_drift_whose_token_has_changed(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    if isinstance(policy, LayerwisePolicy):
        return  # its rows of layer 0 may be other rows than those of the rest, and dirty means all layers
    seen: list[tuple[StepView, Tensor]] = []
    problem.run(needing_drift(policy, seen), decoder)
    for view, drift in seen[1:]:
        assert not bool((drift[:, 0] > 0)[~view.dirty].any())


@frozen
class Rows(CachePolicy):
    """Any rows, a function of step and column alone."""

    name = "test-rows"
    needs = frozenset({"drift"})
    salt: int = 0

    def select(self, view: StepView) -> Selection:
        place = view.is_valid.long().cumsum(dim=1) * 7919 + view.step * 104729 + self.salt * 31
        return Selection(view.nothing, refresh=place % 101 < 40)


@frozen
class RowsByLayer(LayerwisePolicy):
    """The same, other rows in every layer."""

    name = "test-rows-by-layer"
    needs = frozenset({"drift"})
    salt: int = 0

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        rows = Rows(self.salt + 3 * layer.layer).select(view).refresh
        assert rows is not None
        return rows


ARBITRARY = st.builds(Rows, st.integers(0, 50)) | st.builds(RowsByLayer, st.integers(0, 50))


def naive_distance(held: Tensor, true: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(held.flatten(2).double(), true.flatten(2).double(), dim=2)


@examples(15)
@given(problem=problems(max_batch=2), policy=ARBITRARY, decoder=any_decoder())
def test_the_signal_is_what_the_naive_executor_finds_on_the_current_canvas(
    problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    """Both caches are rebuilt step by step from the rows of the trace; sequences finish at different times."""
    seen: list[tuple[StepView, Tensor]] = []
    cls: Any = type(policy)

    def select(self: Any, view: StepView) -> Selection:
        seen.append((view, view.signals["drift"]))
        answer: Selection = cls.select(self, view)
        return answer

    watching = type(cls)(cls.__name__, (cls,), {"select": select})(policy.salt)  # type: ignore[attr-defined]
    run = problem.run(watching, decoder)
    layers, network = problem.shape.layers, problem.network
    for sequence in range(problem.batch):
        alone = problem.only(sequence)
        canvas = canvas_of(alone)
        tokens, cached = canvas.tokens(), NaiveExecutor(network, canvas.is_valid)
        views = [
            drift[list(view.sequence.tolist()).index(sequence)] for view, drift in seen if sequence in view.sequence
        ]
        for number, (step, drift) in enumerate(zip(own_steps(run, sequence), views, strict=True)):
            if number > 0:
                truth = NaiveExecutor(network, canvas.is_valid)
                truth.step(tokens, [torch.ones_like(tokens, dtype=torch.bool)] * layers)
                for layer in range(layers):
                    expected = torch.zeros_like(canvas.is_valid, dtype=torch.float64)
                    for held, true in ((cached.keys, truth.keys), (cached.values, truth.values)):
                        expected += naive_distance(stored(cached, held, layer), stored(truth, true, layer)) / 2
                    expected = expected.masked_fill(~canvas.is_valid, 0)
                    torch.testing.assert_close(drift[layer].double(), expected[0], rtol=1e-4, atol=1e-5)
            cached.step(tokens, [step.layer(layer)[sequence : sequence + 1] for layer in range(layers)])
            tokens = step.tokens[sequence : sequence + 1]


@examples(15)
@given(problem=problems(greedy=True), decoder=any_decoder())
def test_without_a_cache_the_evidence_is_the_truth_itself(problem: Problem, decoder: Decoder) -> None:
    def same(evidence: Evidence) -> None:
        mine, true = evidence.store, evidence.truth.store
        for layer in range(problem.shape.layers):
            for what in ("keys", "values", "hidden"):
                torch.testing.assert_close(getattr(mine, what)(layer), getattr(true, what)(layer))

    run_canvas(
        problem.network,
        canvas_of(problem),
        options_of(problem, resolve_policy("none"), decoder),
        on_evidence=same,
    )


def test_true_logits_are_those_of_the_plain_model_for_the_named_positions() -> None:
    problem = problems_of_two()
    found: list[int] = []

    def compare(evidence: Evidence) -> None:
        state = evidence.state
        plain = problem.network.forward(state.tokens, state.is_valid).logits.roll(
            problem.network.network_spec.logits_shift, dims=1
        )
        torch.testing.assert_close(evidence.truth.logits(evidence.predict), plain[evidence.predict].float())
        found.append(int(evidence.predict.sum()))

    for family in ("llada", "dream"):
        problem = problems_of_two().evolve(shape=freshkv.testing.NetworkShape(family=family))
        run_canvas(
            problem.network,
            canvas_of(problem),
            options_of(problem, resolve_policy("dual"), resolve_decoder("threshold:threshold=0.05")),
            on_evidence=compare,
        )
    assert sum(found) > 8


def problems_of_two() -> Problem:
    return Problem(
        shape=freshkv.testing.NetworkShape(),
        input_ids=torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]),
        is_valid=torch.tensor([[False, True, True, True], [True, True, True, True]]),
        gen_length=6,
        block_length=3,
        seeds=(0, 1),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_distances_are_what_their_names_say(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    held, true = (torch.randn(50, 16, generator=generator).to(dtype) for _ in range(2))
    expected = 1 - functional.cosine_similarity(held.double(), true.double(), dim=1)
    torch.testing.assert_close(cosine_distance(held, true).double(), expected, rtol=1e-5, atol=1e-6)
    ratio = (held.double() - true.double()).norm(dim=1) / true.double().norm(dim=1)
    torch.testing.assert_close(relative_norm(held, true).double(), ratio, rtol=1e-5, atol=1e-6)
    assert not bool(cosine_distance(true, true).any())
    assert not bool(relative_norm(true, true).any())


def test_a_small_angle_keeps_its_digits_in_float32() -> None:
    true = torch.tensor([[1.0, 0.0]])
    for angle in (1e-2, 1e-3, 1e-4):
        held = torch.tensor([[1.0, angle]])
        assert float(cosine_distance(held, true)) == pytest.approx(angle**2 / 2, rel=1e-2)


def test_a_class_says_whether_it_sees_the_truth() -> None:
    assert Rows.uses_truth
    assert RowsByLayer().uses_truth
    assert not freshkv.CachePolicy.uses_truth
    assert {name for name, cls in freshkv.policies().items() if cls.uses_truth} == {"oracle"}
