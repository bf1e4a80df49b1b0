"""The way of a step: view, select, plan, forward, predict, commit, record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.agreement import agreed_commit, check_same_run
from freshkv.core.check import check_commit, check_needs, guarded
from freshkv.core.decoder import Commit, Decoder
from freshkv.core.engine import Engine, Padding
from freshkv.core.engine_options import engine_options
from freshkv.core.errors import DecoderError, NumericalError, PolicyWroteError
from freshkv.core.fetching import fetch
from freshkv.core.forward_result import ForwardResult
from freshkv.core.graphs import Record
from freshkv.core.groups import Groups
from freshkv.core.inspect import Progress, nan_logits, read_progress, step_facts
from freshkv.core.layerwise import LayerQuestions
from freshkv.core.network import Network
from freshkv.core.plan import StepPlan
from freshkv.core.planning import PlannedPass, Planner, check_told, told
from freshkv.core.policy import CachePolicy, LayerwisePolicy
from freshkv.core.predict import Predicted, Predictor, Wanted
from freshkv.core.rows import RowSet
from freshkv.core.sampling import Sampling
from freshkv.core.state import RunState
from freshkv.core.trace import StepRecord
from freshkv.core.truth import Evidence, OnEvidence, Truth
from freshkv.core.visible import Gathering, Visible

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
    gathering: Gathering = "auto"  #: of visible keys, where some are hidden: a matter of speed alone
    inference_mode: bool = True  #: torch's, around the layers: a matter of speed alone
    record: Record | None = None  #: has passes recorded and replayed: a matter of speed alone
    reuse_projections: bool = False  #: of the first layer, see ``Projections``: a matter of speed alone
    #: ask policies with ``plans_ahead`` before the host knows how a step has ended, so that it waits once a step; None:
    #: where it waits at all, on any device but a CPU. A matter of speed alone
    plan_ahead: bool | None = None
    #: sequences come and go: padding is not computed, and a sequence whose logits are no numbers leaves alone
    packed: bool = False


class RecordsSteps(Protocol):
    """Told of every step."""

    def record(self, after: RunState, plan: StepPlan, result: ForwardResult, commit: Commit) -> None:
        """A step is done; ``after`` is the state behind its commit."""


class DenoisingLoop:
    """Decodes sequences from the state ``start``. One step is one forward pass and one commit for each of them."""

    def __init__(
        self,
        network: Network,
        start: RunState,
        options: RunOptions,
        recorder: RecordsSteps,
        on_evidence: OnEvidence | None = None,
    ) -> None:
        self.options, self.recorder, self.on_evidence = options, recorder, on_evidence
        check_needs(options.policy, options.decoder)
        self.shift = network.network_spec.logits_shift
        policy = options.policy
        padding: Padding = "blank" if options.packed else "computed"
        self.engine = Engine(
            network,
            start.is_valid,
            **engine_options(policy),
            keep_hidden=on_evidence is not None,
            gathering=options.gathering,
            inference_mode=options.inference_mode,
            record=options.record,
            reuse_projections=options.reuse_projections,
            padding=padding,
            poison=options.poison,
        )
        self.division = self.engine.division
        check_same_run(self.division, start, options)
        self.truth: Truth | None = None
        if on_evidence is not None or policy.uses_truth:
            same: dict[str, Any] = {"padding": padding, "inference_mode": options.inference_mode}
            self.truth = Truth(network, start.is_valid, keep_hidden=on_evidence is not None, **same)
        self.predictor = Predictor(network, options.decoder, options.sampling, options.seeds)
        self.planner = Planner(self.engine, options, alone=self.truth is None)
        self._next: tuple[PlannedPass, Mapping[str, Tensor]] | None = None
        self.state = start.with_signals(self._no_signals(start))

    @torch.no_grad()
    def run(self, after_step: Callable[[], None]) -> None:
        """Step until every sequence is decided. What was recorded before an error stays in ``recorder``."""
        while self.state.batch > 0:
            self.step()
            after_step()

    def admit(self, newcomers: RunState, seeds: Sequence[int]) -> None:
        """Sequences that begin now, in places that others have left; their canvas is as wide."""
        self.engine.admit(newcomers.is_valid)
        if self.truth is not None:
            self.truth.admit(newcomers.is_valid)
        self.predictor.admit(seeds)
        self.state = self.state.joined(newcomers.with_signals(self._no_signals(newcomers)))

    def step(self) -> Progress:
        """One pass over all unfinished sequences, and their commits."""
        self._check_pace()
        planned, on_host = self._planned()
        name, before, groups = type(self.options.decoder).__name__, planned.state, planned.groups
        check_told(planned, on_host, name)
        plan, result, wanted = self._forward(planned, on_host)
        predicted = self.predictor.predict(before, result, plan.predict, wanted)
        informed = before.after_forward(self._refreshed(result), predicted, self._signals())
        commit = agreed_commit(self.division, self._decode(informed, predicted, wanted, groups))
        self._give_evidence(before, plan, result, predicted, commit)
        after = informed.after_commit(commit, plan.selection.remember)
        asked = {"facts": step_facts(before, after, predicted, commit)}
        del predicted  # the largest tensors of a step
        ahead = self.planner.plan_ahead(after)
        told_ahead = fetch(asked | (dict(ahead.asked) if isinstance(ahead, PlannedPass) else {}))
        progress = read_progress(told_ahead["facts"], before, name)
        if any(progress.broken) and not self.options.packed:
            raise NumericalError(
                f"{nan_logits(progress, before)} Try another dtype (float32, bfloat16), and look for a damaged "
                "checkpoint. The steps before this one are in the error's 'partial'."
            )
        self.recorder.record(after, plan, result, commit)
        if isinstance(ahead, PolicyWroteError):
            raise ahead
        if ahead is not None and all(progress.block_unfinished) and not any(progress.broken):
            self.state, self._next = ahead.state, (ahead, told_ahead)
        else:
            self.state = self._drop_finished(after, progress)
        return progress

    def _planned(self) -> tuple[PlannedPass, Mapping[str, Tensor]]:
        """The next pass, and what the host is told of it. Planned now, unless that was done ahead for this state."""
        ahead, self._next = self._next, None
        if ahead is not None and ahead[0].state is self.state:
            return ahead
        planned = self.planner.plan(self._beside_truth(self.state))
        return planned, told(planned)

    def _check_pace(self) -> None:
        for step, length in zip(self.state.step, self.state.gen_length, strict=True):
            most = MOST_STEPS_PER_POSITION * length
            if step >= most:
                raise DecoderError(
                    f"{type(self.options.decoder).__name__} has not decided {length} positions in {most} steps: it "
                    "masks again as much as it commits. A revocable decoder must gain in the long run."
                )

    def _refreshed(self, result: ForwardResult) -> Tensor:
        """bool [batch, seq]: rows that are clean now; of blank padding all."""
        rows = _refreshed_everywhere(result)
        return rows | ~self.state.is_valid if self.options.packed else rows

    def _forward(self, planned: PlannedPass, on_host: Mapping[str, Tensor]) -> tuple[StepPlan, ForwardResult, Wanted]:
        """The pass, and the plan as it then is: a layer-wise policy makes up its mind on the way."""
        policy, tokens, plan, engine = self.options.policy, planned.state.tokens, planned.plan, self.engine
        known = {
            name: None if mask is None else RowSet.of(mask, on_host[name])
            for name, mask in (("verify", planned.verify), ("changed", planned.changed))
        }
        visible = None if plan.visible is None else Visible(plan.visible, on_host["visible"])
        if not isinstance(policy, LayerwisePolicy):
            result = engine.narrow(tokens, RowSet.of(plan.rows, on_host["rows"]), visible, **known)
            return plan, result, Wanted.of(on_host, tokens.device)
        questions = LayerQuestions(
            policy,
            planned.views,
            planned.groups,
            plan,
            layers=engine.spec.layers,
            shift=self.shift,
            drift=lambda: engine.attention_drift,
            computed=self.state.is_valid if self.options.packed else None,
            division=self.division,
        )
        result = engine.carried(tokens, questions.choose, questions.probing, visible, watch=plan.watch, **known)
        plan = questions.answered()
        known_before = policy.predicts == "carried"
        wanted = on_host if known_before else fetch(Wanted.masks(planned.state, plan.predict))
        return plan, result, Wanted.of(wanted, tokens.device)

    def _no_signals(self, start: RunState) -> dict[str, Tensor]:
        """What ``signals`` holds before the first pass: zeros."""
        batch, seq = start.tokens.shape
        by_layer = (batch, self.engine.spec.layers, seq)
        shapes = {"attention_rollout": (batch, seq)} | dict.fromkeys(
            ("attention_received", "attention_scores", "drift"), by_layer
        )
        needs, device = self.options.policy.needs, start.tokens.device
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
        # nothing is cached before the first pass, and of sequences that only begin nothing counts
        drifts = "drift" in self.options.policy.needs and any(step > 0 for step in state.step)
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

    def _decode(self, state: RunState, predicted: Predicted, wanted: Wanted, groups: Groups) -> Commit:
        decoder = self.options.decoder
        where = f"{type(decoder).__name__}.decode"
        commits = []
        predictions = groups.split_prediction(predicted.in_block, wanted)
        for places, prediction in zip(groups.places, predictions, strict=True):
            part = state.take(places)
            view = part.view(part.decoder_memory, self.shift)
            with guarded(where, view, DecoderError, prediction.handed()):
                answer = decoder.decode(view, prediction)
            commits.append(check_commit(answer, view.shape, where, revocable=decoder.revocable))
        return groups.merge_commits(commits, state.decoder_memory)

    def _drop_finished(self, after: RunState, progress: Progress) -> RunState:
        state = after.advance(progress.block_unfinished)
        staying = zip(progress.unfinished, progress.broken, strict=True)
        going = [place for place, (unfinished, broken) in enumerate(staying) if unfinished and not broken]
        # where nobody is to come, a finished batch needs no room
        if len(going) < state.batch and (going or self.options.packed):
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
