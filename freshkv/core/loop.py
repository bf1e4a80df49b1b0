"""The way of a step: view, select, plan, forward, predict, commit, record."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.agreement import agreed_commit, agreed_mask, agreed_plan, check_same_run
from freshkv.core.canvas import Canvas
from freshkv.core.check import check_commit, check_needs, guarded, verified_positions
from freshkv.core.decoder import Commit, Decoder
from freshkv.core.engine import Engine, ForwardResult
from freshkv.core.errors import DecoderError
from freshkv.core.groups import Groups
from freshkv.core.inspect import Progress, inspect_step
from freshkv.core.layerwise import LayerQuestions
from freshkv.core.network import Network
from freshkv.core.plan import StepPlan, plan_step
from freshkv.core.policy import CachePolicy, LayerwisePolicy
from freshkv.core.predict import Predicted, Predictor
from freshkv.core.recorder import Recorder
from freshkv.core.rows import RowSet
from freshkv.core.sampling import Sampling
from freshkv.core.state import RunState
from freshkv.core.trace import StepRecord
from freshkv.core.truth import Evidence, OnEvidence, Truth
from freshkv.core.view import StepView
from freshkv.core.visible import Gathering

OnStep = Callable[[StepRecord], None]

#: signals that are computed from the queries of the last pass
_FROM_QUERIES = frozenset({"attention_rollout", "attention_received", "attention_scores"})

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
    gathering: Gathering = "auto"  #: of visible keys, where some are hidden: a matter of speed alone


class DenoisingLoop:
    """Decodes a canvas. One step is one forward pass and one commit for every unfinished sequence."""

    def __init__(
        self, network: Network, canvas: Canvas, options: RunOptions, on_evidence: OnEvidence | None = None
    ) -> None:
        self.options, self.on_evidence = options, on_evidence
        check_needs(options.policy, options.decoder)
        # a distribution's history begins before its block opens
        self.predict_all = "divergence" in options.decoder.needs
        self.shift = network.network_spec.logits_shift
        self.state = RunState.start(canvas)
        self.engine = Engine(
            network,
            canvas.is_valid,
            carried=isinstance(options.policy, LayerwisePolicy),
            keep_queries=bool(options.policy.needs & _FROM_QUERIES),
            keep_hidden=on_evidence is not None,
            keep_inputs=isinstance(options.policy, LayerwisePolicy) and options.policy.probes == "hidden_states",
            watch_attention="attention_drift" in options.policy.needs,
            gathering=options.gathering,
            poison=options.poison,
        )
        self.division = self.engine.division
        check_same_run(self.division, canvas, options)
        compared = on_evidence is not None or options.policy.uses_truth
        self.truth = Truth(network, canvas.is_valid, keep_hidden=on_evidence is not None) if compared else None
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
        before, network_spec = self._beside_truth(self.state), self.engine.spec
        groups = Groups(tuple(before.groups()))
        views = [part.view(part.policy_memory, self.shift) for part in map(before.take, groups.places)]
        written = groups.split(self.engine.store.written)
        plans = [
            plan_step(self.options.policy, view, network_spec, written=rows, predict_all=self.predict_all)
            for view, rows in zip(views, written, strict=True)
        ]
        plan = agreed_plan(self.division, groups.merge_plans(plans, before.policy_memory))
        plan, result = self._forward(plan, views, groups)
        predicted = self.predictor.predict(before, result, plan.predict)
        informed = before.after_forward(_refreshed_everywhere(result), predicted, self._signals())
        commit = agreed_commit(self.division, self._decode(informed, predicted, groups))
        self._give_evidence(before, plan, result, predicted, commit)
        after = informed.after_commit(commit, plan.selection.remember)
        name = type(self.options.decoder).__name__
        progress = inspect_step(before, after, predicted, commit, name)
        self.recorder.record(after, plan, result, commit)
        self.state = self._drop_finished(after, progress)

    def _forward(self, plan: StepPlan, views: list[StepView], groups: Groups) -> tuple[StepPlan, ForwardResult]:
        """The pass, and the plan as it then is: a layer-wise policy makes up its mind on the way."""
        policy, tokens, engine = self.options.policy, self.state.tokens, self.engine
        verify = self._verify(groups)
        if not isinstance(policy, LayerwisePolicy):
            return plan, engine.narrow(tokens, RowSet.of(plan.rows), plan.visible, verify)
        questions = LayerQuestions(
            policy,
            views,
            groups,
            plan,
            layers=engine.spec.layers,
            shift=self.shift,
            drift=lambda: engine.attention_drift,
            division=self.division,
        )
        result = engine.carried(tokens, questions.choose, questions.probing, plan.visible, verify, plan.watch)
        return questions.answered(), result

    def _verify(self, groups: Groups) -> Tensor | None:
        decoder = self.options.decoder
        if not decoder.revocable:
            return None
        views = [part.view(part.decoder_memory, self.shift) for part in map(self.state.take, groups.places)]
        asked = [verified_positions(decoder, view) for view in views]
        return agreed_mask(self.division, groups.merge_optional(asked, [v.is_masked for v in views], missing=False))

    def _no_signals(self) -> dict[str, Tensor]:
        """What ``signals`` holds before the first pass: zeros."""
        batch, seq = self.state.tokens.shape
        by_layer = (batch, self.engine.spec.layers, seq)
        shapes = {"attention_rollout": (batch, seq)} | dict.fromkeys(
            ("attention_received", "attention_scores", "drift"), by_layer
        )
        needs, device = self.options.policy.needs, self.state.tokens.device
        return {name: torch.zeros(shape, device=device) for name, shape in shapes.items() if name in needs}

    def _signals(self) -> dict[str, Tensor]:
        needs, signals = self.options.policy.needs, {}
        if "attention_rollout" in needs:
            signals["attention_rollout"] = self.engine.rollout()
        if "attention_received" in needs:
            signals["attention_received"] = self.engine.attention_received(self.state.in_block)
        if "attention_scores" in needs:
            signals["attention_scores"] = self.engine.attention_scores(self.state.in_block)
        return signals

    def _beside_truth(self, state: RunState) -> RunState:
        """The same state, with the signal ``drift`` on its canvas if the policy needs it."""
        drifts = "drift" in self.options.policy.needs and state.step[0] > 0  # nothing is cached before the first pass
        if self.truth is not None and (drifts or self.on_evidence is not None):
            self.truth.forward(state.tokens)
            if drifts:
                return state.with_signals({**state.signals, "drift": self.truth.drift_of(self.engine.store)})
        return state

    def _give_evidence(
        self, state: RunState, plan: StepPlan, result: ForwardResult, predicted: Predicted, commit: Commit
    ) -> None:
        if self.on_evidence is not None and self.truth is not None:
            self.on_evidence(
                Evidence(
                    state=state,
                    store=self.engine.store,
                    result=result,
                    predict=plan.predict,
                    predicted=predicted,
                    commit=commit,
                    truth=self.truth,
                )
            )

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
            if self.truth is not None:
                self.truth.keep(going)
        return state.take(tuple(going))


def _refreshed_everywhere(result: ForwardResult) -> Tensor:
    first, *others = result.refreshed
    mask = first.mask
    for rows in others:
        if rows is not first:
            mask = mask & rows.mask
    return mask
