"""Plans passes: one ahead where that saves a wait, and all that the host must know of one in a single transfer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen
from torch import Tensor

from freshkv.core.agreement import agreed_mask, agreed_plan
from freshkv.core.axes import SEQ
from freshkv.core.check import verified_positions
from freshkv.core.engine import Engine
from freshkv.core.errors import DecoderError, PolicyError, PolicyWroteError
from freshkv.core.fetching import fetch
from freshkv.core.groups import Groups
from freshkv.core.plan import StepPlan, plan_step
from freshkv.core.policy import LayerwisePolicy
from freshkv.core.predict import Wanted
from freshkv.core.state import RunState
from freshkv.core.view import StepView

if TYPE_CHECKING:
    from freshkv.core.loop import RunOptions


@frozen(kw_only=True, eq=False)
class PlannedPass:
    """What a pass is to do, before the host knows which rows that takes."""

    state: RunState  #: the pass is for this very one
    groups: Groups
    views: Sequence[StepView]  #: of each group
    plan: StepPlan
    changed: Tensor | None  #: what ``Engine.changed`` says
    verify: Tensor | None  #: bool [batch, seq]; positions of shadow rows
    asked: Mapping[str, Tensor]  #: what the host must be told, bool, on the device of the run


class Planner:
    """Asks the policy which rows go through, and a revocable decoder which positions it verifies.

    ``alone`` says that nothing else is computed between a commit and the next pass.
    """

    def __init__(self, engine: Engine, options: RunOptions, *, alone: bool) -> None:
        self._engine, self._options = engine, options
        # a distribution's history begins before its block opens
        self._predict_all = "divergence" in options.decoder.needs
        self._shift = engine.spec.logits_shift
        wanted = engine.network.device.type != "cpu" if options.plan_ahead is None else options.plan_ahead
        may = alone and options.policy.plans_ahead and not options.decoder.revocable
        # processes could differ in whether a policy fails, and would wait for each other
        self._ahead = wanted and may and engine.division.parts == 1

    def plan(self, state: RunState) -> PlannedPass:
        """The next pass from ``state``. Waits for nothing that the policy does not wait for. Raises PolicyError."""
        engine, policy = self._engine, self._options.policy
        groups = Groups(tuple(state.groups()))
        parts = [state.take(places) for places in groups.places]
        views = [part.view(part.policy_memory, self._shift) for part in parts]
        plans = [plan_step(policy, view, engine.spec, predict_all=self._predict_all) for view in views]
        plan = groups.merge_plans(plans, state.policy_memory)
        plan = agreed_plan(engine.division, self._without_padding(plan, state))
        changed, verify = engine.changed(state.tokens), self._verify(parts, groups)
        return PlannedPass(
            state=state,
            groups=groups,
            views=views,
            plan=plan,
            changed=changed,
            verify=verify,
            asked=self._asked(state, plan, changed, verify),
        )

    def plan_ahead(self, after: RunState) -> PlannedPass | PolicyWroteError | None:
        """The pass behind the commit that led to ``after``, if no sequence ends with it, nor the block of any.

        None where nobody is asked early, or the answer is an error: the same question, in its turn, raises it. That
        the policy has written to the state is the error itself, which is then not to be used.
        """
        if not self._ahead:
            return None
        try:
            return self.plan(after.advance((True,) * after.batch))
        except PolicyWroteError as error:
            return error
        except Exception:  # whatever a plugin's answer may lead to, in a state that may never come about
            return None

    def _without_padding(self, plan: StepPlan, state: RunState) -> StepPlan:
        """The plan of what is computed."""
        if not self._options.packed:
            return plan
        return evolve(plan, rows=plan.rows & state.is_valid, added=plan.added & state.is_valid)

    def _verify(self, parts: Sequence[RunState], groups: Groups) -> Tensor | None:
        decoder = self._options.decoder
        if not decoder.revocable:
            return None
        asked = [verified_positions(decoder, part.view(part.decoder_memory, self._shift)) for part in parts]
        merged = groups.merge_optional(asked, [part.is_masked for part in parts], missing=False)
        return agreed_mask(self._engine.division, merged)

    def _asked(
        self, state: RunState, plan: StepPlan, changed: Tensor | None, verify: Tensor | None
    ) -> dict[str, Tensor]:
        asked: dict[str, Tensor] = {}
        policy = self._options.policy
        if not isinstance(policy, LayerwisePolicy):  # one of those chooses its rows on the way
            asked["rows"] = plan.rows
        if not isinstance(policy, LayerwisePolicy) or policy.predicts == "carried":
            asked |= Wanted.masks(state, plan.predict)
        if changed is not None:
            asked["changed"] = changed
        if plan.visible is not None:
            valid = state.is_valid if plan.visible.ndim == 2 else state.is_valid[:, None]
            asked["visible"] = plan.visible
            asked["blind"] = ~(plan.visible & valid).any(dim=-1)
        if verify is not None:
            asked["verify"], asked["astray"] = verify, (verify & ~state.in_block).any(dim=SEQ)
        return asked


def told(planned: PlannedPass) -> dict[str, Tensor]:
    """What ``planned`` asks for, on the host: one wait, or none where nothing is asked."""
    return fetch(planned.asked) if planned.asked else {}


def check_told(planned: PlannedPass, on_host: Mapping[str, Tensor], decoder: str) -> None:
    """Raise PolicyError where no key is left, DecoderError where ``decoder`` verifies what is not of the block."""
    state = planned.state
    if "blind" in on_host and bool(on_host["blind"].any()):
        places = sorted(set(on_host["blind"].nonzero()[:, 0].tolist()))
        who = sorted(int(state.sequence[place]) for place in places)
        steps = sorted({state.step[place] for place in places})
        when = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps}"
        raise PolicyError(f"The selection leaves no visible key at all in sequences {who} at {when}.")
    if "astray" in on_host and bool(on_host["astray"].any()):
        raise DecoderError(f"{decoder}.verify named positions outside the active block.")
