"""The way of a step: view, select, plan, forward, predict, commit, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.canvas import Canvas
from freshkv.core.check import check_commit, check_needs, check_tensor, guarded, verified_positions
from freshkv.core.decoder import Commit, Decoder
from freshkv.core.engine import Engine, ForwardResult
from freshkv.core.errors import DecoderError, PolicyError
from freshkv.core.groups import Groups
from freshkv.core.inspect import Progress, inspect_step
from freshkv.core.network import Network
from freshkv.core.plan import StepPlan, plan_step
from freshkv.core.policy import CachePolicy, LayerView, LayerwisePolicy
from freshkv.core.predict import Predicted, Predictor
from freshkv.core.recorder import Recorder
from freshkv.core.rows import RowSet
from freshkv.core.sampling import Sampling
from freshkv.core.state import RunState
from freshkv.core.trace import StepRecord
from freshkv.core.view import StepView

OnStep = Callable[[StepRecord], None]

#: a run that has not ended after so many steps for each response position never will
MOST_STEPS_PER_POSITION = 4


@frozen(kw_only=True, eq=False)
class RunOptions:
    """Everything of a run besides the model and the canvas."""

    policy: CachePolicy
    decoder: Decoder
    sampling: Sampling
    seeds: Sequence[int]  #: one for each sequence
    poison: bool = False  #: fill fresh caches with NaN, so that reading what was never written shows


class DenoisingLoop:
    """Decodes a canvas. One step is one forward pass and one commit for every unfinished sequence."""

    def __init__(self, network: Network, canvas: Canvas, options: RunOptions) -> None:
        self.options = options
        check_needs(options.policy, options.decoder)
        # a distribution's history begins before its block opens
        self.predict_all = "divergence" in options.decoder.needs
        self.shift = network.network_spec.logits_shift
        self.state = RunState.start(canvas)
        self.engine = Engine(
            network,
            canvas.is_valid,
            carried=isinstance(options.policy, LayerwisePolicy),
            keep_queries=bool(options.policy.needs & {"attention_rollout", "attention_received"}),
            watch_attention="attention_drift" in options.policy.needs,
            poison=options.poison,
        )
        self.state = self.state.with_signals(self._no_signals())
        self.predictor = Predictor(network, options.decoder, options.sampling, options.seeds, canvas.gen_length)
        self.recorder = Recorder(canvas)

    @torch.no_grad()
    def run(self, on_step: OnStep | None = None) -> None:
        """Step until every sequence is decided. What was recorded before an error stays in ``recorder``."""
        most = MOST_STEPS_PER_POSITION * self.state.canvas.gen_length
        while self.state.batch > 0:
            if self.state.step[0] >= most:
                name, length = type(self.options.decoder).__name__, self.state.canvas.gen_length
                raise DecoderError(
                    f"{name} has not decided {length} positions in {most} steps: it masks again as much as it commits. "
                    "A revocable decoder must gain in the long run."
                )
            self.step()
            if on_step is not None:
                on_step(self.recorder.last())

    def step(self) -> None:
        """One pass over all unfinished sequences, and their commits."""
        before, network_spec = self.state, self.engine.spec
        groups = Groups(tuple(before.groups()))
        views = [part.view(part.policy_memory, self.shift) for part in map(before.take, groups.places)]
        plan = groups.merge_plans(
            [plan_step(self.options.policy, view, network_spec, predict_all=self.predict_all) for view in views],
            before.policy_memory,
        )
        result = self._forward(plan, views, groups)
        predicted = self.predictor.predict(before, result, plan.predict)
        informed = before.after_forward(_refreshed_everywhere(result), predicted, self._signals())
        commit = self._decode(informed, predicted, groups)
        after = informed.after_commit(commit, plan.selection.remember)
        name = type(self.options.decoder).__name__
        progress = inspect_step(before, after, predicted, commit, name)
        self.recorder.record(after, plan, result, commit)
        self.state = self._drop_finished(after, progress)

    def _forward(self, plan: StepPlan, views: list[StepView], groups: Groups) -> ForwardResult:
        policy, tokens = self.options.policy, self.state.tokens
        verify = self._verify(groups)
        if not isinstance(policy, LayerwisePolicy):
            return self.engine.narrow(tokens, RowSet.of(plan.rows), plan.visible, verify)

        below = torch.zeros_like(plan.rows)

        def choose(layer: int, movement: Tensor) -> Tensor:
            nonlocal below
            facts = (groups.split(fact) for fact in (movement, below, self.engine.attention_drift))
            layers = [LayerView(layer, self.engine.spec.layers, *parts) for parts in zip(*facts, strict=True)]
            below = groups.merge([_select_layer(policy, *pair) for pair in zip(views, layers, strict=True)])
            return below

        probe = None if plan.probe is None else RowSet.of(plan.probe)
        return self.engine.carried(tokens, choose, probe, plan.visible, verify)

    def _verify(self, groups: Groups) -> Tensor | None:
        decoder = self.options.decoder
        if not decoder.revocable:
            return None
        views = [part.view(part.decoder_memory, self.shift) for part in map(self.state.take, groups.places)]
        return groups.merge_optional(
            [verified_positions(decoder, view) for view in views], [v.is_masked for v in views], missing=False
        )

    def _no_signals(self) -> dict[str, Tensor]:
        """What ``signals`` holds before the first pass: zeros."""
        batch, seq = self.state.tokens.shape
        shapes = {"attention_rollout": (batch, seq), "attention_received": (batch, self.engine.spec.layers, seq)}
        needs, device = self.options.policy.needs, self.state.tokens.device
        return {name: torch.zeros(shape, device=device) for name, shape in shapes.items() if name in needs}

    def _signals(self) -> dict[str, Tensor]:
        needs, signals = self.options.policy.needs, {}
        if "attention_rollout" in needs:
            signals["attention_rollout"] = self.engine.rollout()
        if "attention_received" in needs:
            signals["attention_received"] = self.engine.attention_received(self.state.in_block)
        return signals

    def _decode(self, state: RunState, predicted: Predicted, groups: Groups) -> Commit:
        decoder = self.options.decoder
        where = f"{type(decoder).__name__}.decode"
        commits = []
        for places, prediction in zip(groups.places, groups.split_prediction(predicted.in_block), strict=True):
            part = state.take(places)
            view = part.view(part.decoder_memory, self.shift)
            with guarded(where, view, DecoderError, prediction.handed()):
                answer = decoder.decode(view, prediction)
            commits.append(check_commit(answer, view.shape, where, revocable=decoder.revocable))
        return groups.merge_commits(commits, state.decoder_memory)

    def _drop_finished(self, after: RunState, progress: Progress) -> RunState:
        state = after.advance(progress.block_unfinished)
        going = [place for place, unfinished in enumerate(progress.unfinished) if unfinished]
        if going and len(going) < state.batch:
            self.engine.keep(going)
            self.predictor.keep(going)
        return state.take(tuple(going))


def _select_layer(policy: LayerwisePolicy, view: StepView, layer: LayerView) -> Tensor:
    if view.step == 0:
        return view.everything
    where = f"{type(policy).__name__}.select_layer"
    with guarded(where, view, PolicyError, {"layer.movement": layer.movement}):
        rows = policy.select_layer(view, layer)
    check_tensor(rows, torch.bool, view.shape, where, PolicyError)
    return rows


def _refreshed_everywhere(result: ForwardResult) -> Tensor:
    first, *others = result.refreshed
    mask = first.mask
    for rows in others:
        if rows is not first:
            mask = mask & rows.mask
    return mask
