"""What always holds for cache policies."""

from __future__ import annotations

import attrs
import torch
from hypothesis import strategies as st

from freshkv.core.policy import LayerwisePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.run import Run
from freshkv.core.selection import Selection
from freshkv.testing.conformance.checks import Checks, Draw, LeftOutError
from freshkv.testing.conformance.device_checks import add_device_check
from freshkv.testing.conformance.observer import INVALID
from freshkv.testing.conformance.partners import SHAPES, any_decoder, any_final_decoder, any_problem
from freshkv.testing.conformance.runs import Case, parting
from freshkv.testing.conformance.shared_checks import add_call_checks, add_independence_checks, add_option_checks
from freshkv.testing.conformance.subject import Subject
from freshkv.testing.networks import FAMILIES, Family, NetworkShape
from freshkv.testing.problems import Problem
from freshkv.testing.strategies import left_padded
from freshkv.testing.watched import WatchedNetwork
from freshkv.testing.wrapping import refreshing_everything

POLICY_CHECKS = Checks()


def _case(subject: Subject, draw: Draw, *, batch: tuple[int, int] = (1, 3)) -> Case:
    policy, decoder = draw(subject.any()), draw(any_decoder())
    return Case(draw(any_problem(batch=batch)), policy, decoder)


add_option_checks(POLICY_CHECKS)
add_call_checks(POLICY_CHECKS, "policy", _case, remember="Selection.remember (handed back in view.memory).")


@POLICY_CHECKS.add(
    why="in the first step nothing is cached: a row that is left out would be read before it was ever written.",
    mend="report this: the core refreshes every row in the first step, whatever a policy names or hides.",
)
def the_first_step_refreshes_everything(subject: Subject, draw: Draw) -> None:
    """In every layer, and what the policy hides, too."""
    case = _case(subject, draw)
    first = case.run(poison=False).trace[0]
    for layer in range(case.problem.shape.layers):
        left_out = ~first.layer(layer)
        if bool(left_out.any()):
            columns = left_out.any(dim=0).nonzero()[:, 0].tolist()
            raise case.fail(f"The first step left out columns {columns} in layer {layer}.")


@POLICY_CHECKS.add(
    why="cached numbers that were never computed are noise, which may look like an answer.",
    mend="report this: which rows are read is the core's business.",
)
def what_was_never_written_is_never_read(subject: Subject, draw: Draw) -> None:
    """Caches that start as NaN change nothing."""
    case = _case(subject, draw)
    parted = parting(case.run(poison=True), case.run(poison=False))
    if parted is not None:
        raise case.fail(f"With caches full of NaN at the start, {parted}.")


@POLICY_CHECKS.add(
    why="a run that does not end, or leaves masks behind, is no answer.",
    mend="leave every sequence a visible key, and let the policy answer in any step; the core adds the rows that are "
    "missing.",
)
def a_run_ends_with_every_position_decided(subject: Subject, draw: Draw) -> None:
    """Within a step a position, for decoders that never take back."""
    case = attrs.evolve(_case(subject, draw), decoder=draw(any_final_decoder()))
    run, problem = case.run(), case.problem
    if len(run.trace) > problem.gen_length:
        raise case.fail(f"A run of {problem.gen_length} positions took {len(run.trace)} steps with {subject.name}.")
    if bool((run.responses == problem.shape.mask_token_id).any()):
        raise case.fail(f"A run with {subject.name} ended with masks in its response.")


add_independence_checks(POLICY_CHECKS, _case)
add_device_check(POLICY_CHECKS, _case)


@POLICY_CHECKS.add(
    after=("every_answer_has_the_right_form",),
    share=0.5,
    why="copies of the keys that stay visible take memory, and how many requests fit is planned by what a policy says.",
    mend="set hides_keys = True in the class, beside its name; or leave Selection.visible None.",
)
def it_says_that_it_hides_keys(subject: Subject, draw: Draw) -> None:
    """Where a selection says what is visible."""
    case = _case(subject, draw)
    observer, _ = case.observe("policy")
    selections = [call.answer for call in observer.calls if isinstance(call.answer, Selection)]
    hiding = [selection for selection in selections if selection.visible is not None]
    if hiding and not case.policy.hides_keys:
        steps = f"{len(hiding)} of {len(selections)} steps"
        raise case.fail(f"{subject.name} says what is visible in {steps}, and does not say that it hides keys.")


@POLICY_CHECKS.add(
    after=("every_answer_has_the_right_form",),
    share=0.5,
    why="a policy with plans_ahead is also asked what follows a step that decides no block, before that is known: of a "
    "block, then, in which nothing may be open.",
    mend="answer such a view, too (it does not matter what); or leave plans_ahead False.",
)
def asked_early_it_answers_and_decides_the_same(subject: Subject, draw: Draw) -> None:
    """Where it says that it plans ahead."""
    case = _case(subject, draw)
    if not case.policy.plans_ahead:
        raise LeftOutError("it does not say that it plans ahead")
    observer, run = case.observe("policy", plan_ahead=True)
    found = observer.findings.get(INVALID)
    if found is not None:
        raise case.fail(f"Asked early, {found}")
    if run is None:
        raise case.fail(f"Asked early, the run ended with {type(observer.error).__name__}: {observer.error}")
    parted = parting(run, case.run(plan_ahead=False))
    if parted is not None:
        raise case.fail(f"With {subject.name} asked early, {parted}.")


@POLICY_CHECKS.add(
    why="a cache saves work and changes nothing else: a policy whose rows are all refreshed must be the uncached run, "
    "token by token.",
    mend="let the policy act through its Selection alone.",
)
def with_every_row_refreshed_it_is_the_uncached_run(subject: Subject, draw: Draw) -> None:
    """Contract property 1, whatever the options."""
    case = _case(subject, draw)
    widened = attrs.evolve(case, policy=refreshing_everything(case.policy))
    parted = parting(widened.run(), attrs.evolve(case, policy=resolve_policy("none")).run())
    if parted is not None:
        raise case.fail(f"{subject.name} with every row refreshed is not the uncached run: {parted}.")


@POLICY_CHECKS.add(
    why="these options are said to be exact.",
    mend="look for rows that the policy leaves out in some step or layer, or keys that it hides; or correct 'exact'.",
)
def with_its_exact_options_it_is_the_uncached_run(subject: Subject, draw: Draw) -> None:
    """Contract property 1, for the options that the author names."""
    if subject.exact is None:
        raise LeftOutError("no options are said to be exact (set 'exact' to a spec string)")
    case = attrs.evolve(_case(subject, draw), policy=subject.exact)
    parted = parting(case.run(), attrs.evolve(case, policy=resolve_policy("none")).run())
    if parted is not None:
        raise case.fail(f"'{subject.exact.spec}' is not the uncached run: {parted}.")


@POLICY_CHECKS.add(
    why="a cache that computes more than no cache only costs.",
    mend="probe only where the answer decides something, and fewer rows than are saved.",
    share=0.2,
)
def it_never_computes_more_than_the_uncached_run(subject: Subject, draw: Draw) -> None:
    """Multiplications in the layers of a fixed run, probes included."""
    case = Case(_longer_problem(draw(st.sampled_from(FAMILIES))), subject.example, resolve_decoder("confidence"))
    work, uncached = _work(case), _work(attrs.evolve(case, policy=resolve_policy("none")))
    if work > uncached:
        probes = " (the value projections of probed rows among it)" if isinstance(case.policy, LayerwisePolicy) else ""
        raise case.fail(f"{subject.name} computes {work / uncached:.2f} times as much as the uncached run{probes}.")


def _longer_problem(family: Family) -> Problem:
    """Enough of everything that saving shows: 16 prompt and 16 response positions, four layers."""
    shape: NetworkShape = attrs.evolve(SHAPES[0], family=family, layers=4)
    tokens = torch.randint(0, shape.vocabulary, (2, 16), generator=torch.Generator().manual_seed(0))
    return Problem(
        shape=shape,
        input_ids=tokens,
        is_valid=left_padded((0, 3), 16),
        gen_length=16,
        block_length=8,
        seeds=(0, 1),
    )


def _work(case: Case) -> int:
    """Multiplications in the layers of the network, over the whole run; those of a truth beside it are left out."""
    network = WatchedNetwork(case.problem.network)
    run = attrs.evolve(case, network=network).run()
    if case.policy.uses_truth:
        _leave_out_truth(network, run)
    spec, seq = network.network_spec, case.problem.prompt_length + case.problem.gen_length
    value = spec.width * spec.kv_heads * spec.head_width
    attention = spec.width * spec.heads * spec.head_width
    cost = {
        "project": attention + 2 * value + 2 * seq * spec.heads * spec.head_width,
        "project_values": value,
        "attention_output": attention,
        "feed_forward": 3 * spec.width * spec.feed_forward_width,
    }
    return sum(rows * cost[method] for (method, _), rows in network.rows.items() if method in cost)


def _leave_out_truth(network: WatchedNetwork, run: Run) -> None:
    """Uncount the uncached forward of every step but the first, before which nothing is cached."""
    rows = sum(int(step.active.sum()) * step.tokens.shape[1] for step in run.trace[1:])
    for method in ("project", "attention_output", "feed_forward"):
        for layer in range(network.network_spec.layers):
            network.rows[method, layer] -= rows
