"""What always holds for decoders."""

from __future__ import annotations

import attrs
import torch
from hypothesis import strategies as st
from torch import Tensor

from freshkv.core.decoder import Decoder, Prediction
from freshkv.core.registry import resolve_policy
from freshkv.core.view import StepView
from freshkv.testing.conformance.checks import Checks, Draw
from freshkv.testing.conformance.device_checks import add_device_check
from freshkv.testing.conformance.observer import BAD_REMASK, ELSEWHERE, MASK_TOKEN, NOTHING, Call
from freshkv.testing.conformance.partners import EveryOther, any_policy, any_problem, built_in_policies
from freshkv.testing.conformance.runs import Case, parting
from freshkv.testing.conformance.shared_checks import add_call_checks, add_independence_checks, add_option_checks
from freshkv.testing.conformance.subject import Subject
from freshkv.testing.watched import WatchedNetwork
from freshkv.testing.wrapping import refreshing_everything

DECODER_CHECKS = Checks()


def _case(subject: Subject, draw: Draw, *, batch: tuple[int, int] = (1, 3), sampled: bool = True) -> Case:
    decoder, policy = draw(subject.any()), draw(any_policy())
    return Case(draw(any_problem(batch=batch, sampled=sampled, eos=False)), policy, decoder)


def _find(subject: Subject, draw: Draw, what: str) -> None:
    case = _case(subject, draw)
    # once more with gaps among what is predicted
    for seen in (case, attrs.evolve(case, policy=EveryOther())):
        observer, _ = seen.observe("decoder")
        if what in observer.findings:
            raise seen.fail(observer.findings[what])


add_option_checks(DECODER_CHECKS)
add_call_checks(DECODER_CHECKS, "decoder", _case, remember="Commit.remember (handed back in view.memory).")


@DECODER_CHECKS.add(
    after=(),
    why="a decided token is final, later blocks are not open yet, and without logits there is nothing to commit.",
    mend="choose among prediction.positions: every mask of yours & prediction.positions.",
)
def only_predicted_masked_positions_of_the_active_block_are_committed(subject: Subject, draw: Draw) -> None:
    """Commits stay within prediction.positions."""
    _find(subject, draw, ELSEWHERE)


@DECODER_CHECKS.add(
    after=(),
    why="a step that decides nothing is repeated for ever.",
    mend="add the best predicted position of each sequence where your rule takes none: freshkv.best(score, "
    "prediction.positions, 1), or build on freshkv.RankedDecoder.",
)
def every_step_commits_at_least_one_position_of_every_sequence(subject: Subject, draw: Draw) -> None:
    """No step of any sequence is empty."""
    _find(subject, draw, NOTHING)


@DECODER_CHECKS.add(
    after=(),
    why="a mask token in the result is a hole that no later step fills.",
    mend="commit prediction.tokens, which never hold it at predicted positions, or token ids from 0 on.",
)
def the_mask_token_is_never_committed(subject: Subject, draw: Draw) -> None:
    """Committed tokens are proper tokens."""
    _find(subject, draw, MASK_TOKEN)


@DECODER_CHECKS.add(
    after=(),
    why="only a revocable decoder may take tokens back, and only those of the block that is open.",
    mend="remask = ... & view.in_block & ~view.is_masked, and set revocable = True on the class.",
)
def only_decided_positions_of_the_active_block_are_masked_again(subject: Subject, draw: Draw) -> None:
    """Remasking is for revocable decoders, within the open block."""
    _find(subject, draw, BAD_REMASK)


@DECODER_CHECKS.add(
    why="a run that does not end, or leaves masks behind, is no answer.",
    mend="let a revocable decoder mask fewer positions in a step than it commits.",
)
def a_run_ends_with_every_position_decided(subject: Subject, draw: Draw) -> None:
    """A final decoder ends within a step a position, a revocable one ends."""
    case = _case(subject, draw)
    run, problem = case.run(), case.problem
    if len(run.trace) > problem.gen_length and not case.decoder.revocable:
        raise case.fail(f"A run of {problem.gen_length} positions took {len(run.trace)} steps with {subject.name}.")
    if bool((run.responses == problem.shape.mask_token_id).any()):
        raise case.fail(f"A run with {subject.name} ended with masks in its response.")


@DECODER_CHECKS.add(
    why="a sequence may end at its first EOS; masks behind it are left open no more, and become EOS.",
    mend="count what is still to be decided by view.is_open (not view.is_masked), and choose among "
    "prediction.positions.",
)
def a_sequence_that_meets_eos_ends_there_and_is_filled_with_it(subject: Subject, draw: Draw) -> None:
    """The run stops at an EOS that is known to turn up."""
    drawn = _case(subject, draw, batch=(2, 3))
    case = attrs.evolve(drawn, problem=drawn.problem.evolve(gen_length=8, block_length=4))
    first = case.run().trace[0]
    # what is committed first is an EOS with masks before and behind it
    for token in sorted(set(first.tokens[first.committed].tolist())):
        _stop_at(attrs.evolve(case, problem=case.problem.evolve(eos_token_id=token)))


def _stop_at(case: Case) -> None:
    run, problem = case.run(), case.problem
    final = run.trace[-1].tokens[:, problem.prompt_length :]
    for sequence, (tokens, response) in enumerate(zip(final, run.responses, strict=True)):
        ends = (tokens == problem.eos_token_id).nonzero()[:, 0].tolist()
        end = ends[0] if ends else problem.gen_length
        if bool((tokens[: end + 1] == problem.shape.mask_token_id).any()):
            raise case.fail(f"Sequence {sequence} ended with masks before its EOS.")
        left = tokens == problem.shape.mask_token_id
        if bool((response[left] != problem.eos_token_id).any()):
            raise case.fail(f"Masks behind the EOS of sequence {sequence} did not become EOS.")
        produced = min(end + 1, problem.gen_length)
        if int(run.produced[sequence]) != produced:
            raise case.fail(f"Sequence {sequence} produced {produced} tokens; the run says {run.produced[sequence]}.")


def _with_eos(case: Case, draw: Draw) -> Case:
    """The same case with an EOS that turns up in its response."""
    tokens = sorted(set(case.run().responses.flatten().tolist()))
    return attrs.evolve(case, problem=case.problem.evolve(eos_token_id=draw(st.sampled_from(tokens))))


@DECODER_CHECKS.add(
    why="each sequence has random numbers of its own, so that a seed gives the same response in any batch.",
    mend="use prediction.noise, each position for itself; no global random numbers and no noise of other sequences.",
)
def random_numbers_come_from_the_seed_of_the_sequence_alone(subject: Subject, draw: Draw) -> None:
    """Runs repeat, and other sequences' noise does not matter."""
    case = _case(subject, draw, batch=(2, 3))
    observer, run = case.observe("decoder")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(draw(st.integers(0, 100)))
        again = case.run()
    parted = "one of them ends early" if run is None else parting(run, again)
    if parted is not None:
        raise case.fail(f"{subject.name} gave two runs from the same seeds: {parted}.")
    for call in observer.calls:
        if call.method == "decode" and call.arguments[0].shape[0] > 1:
            _reseed_others(case, call)


def _reseed_others(case: Case, call: Call) -> None:
    view, prediction = call.arguments
    for place in range(view.shape[0]):
        noise = 1 - prediction.noise
        noise[place] = prediction.noise[place]
        answer = case.decoder.decode(view, attrs.evolve(prediction, noise=noise))
        if not torch.equal(answer.positions[place], call.answer.positions[place]):
            raise case.fail(
                f"{type(case.decoder).__name__}.decode decided otherwise for sequence {int(view.sequence[place])} when "
                f"the random numbers of the others changed, in step {view.step}."
            )


@DECODER_CHECKS.add(
    why="ties happen (confidences round to 1), and runs can be compared only if everyone breaks them alike.",
    mend="use freshkv.best or freshkv.core.ranking.descending_rank; argsort and sort need stable=True, topk has no "
    "order among ties.",
)
def ties_go_to_the_lower_position(subject: Subject, draw: Draw) -> None:
    """Where all positions are predicted alike, no lower one is passed over."""
    drawn = _case(subject, draw, sampled=False)
    case = attrs.evolve(drawn, policy=resolve_policy("none"), network=_SameEverywhere(drawn.problem.network))
    observer, _ = case.observe("decoder")
    for call in observer.calls:
        # later in a block, what is decided around a position may rightly prefer it
        if call.method == "decode" and call.arguments[0].is_block_start:
            _decode_tied(case, *call.arguments)


class _SameEverywhere(WatchedNetwork):
    """Predicts the same for all positions."""

    def logits(self, hidden: Tensor) -> Tensor:
        row = torch.linspace(0, 1, self.network_spec.vocabulary, dtype=hidden.dtype, device=hidden.device)
        return row.expand(hidden.shape[0], -1).clone()


def _decode_tied(case: Case, view: StepView, prediction: Prediction) -> None:
    decoder: Decoder = case.decoder
    noise = torch.full_like(prediction.noise, 0.5)
    predicted = prediction.positions
    scores = decoder.score_tokens(prediction.distribution, prediction.tokens[predicted], noise[predicted])
    tied = attrs.evolve(
        prediction,
        noise=noise,
        confidence=prediction.place(scores.to(prediction.confidence.dtype), float("-inf")),
        divergence=torch.full_like(prediction.divergence, torch.inf),
    )
    committed = decoder.decode(view, tied).positions
    skipped = (predicted & ~committed).cummax(dim=1).values & committed
    if bool(skipped.any()):
        sequence, column = skipped.nonzero()[0].tolist()
        lower = int((predicted & ~committed)[sequence].nonzero()[0])
        raise case.fail(
            f"{type(decoder).__name__}.decode committed column {column} of sequence {sequence} before column {lower}, "
            f"whose prediction is the same, in step {view.step}."
        )


def _case_that_may_end(subject: Subject, draw: Draw, *, batch: tuple[int, int] = (1, 3)) -> Case:
    case = _case(subject, draw, batch=batch)
    return _with_eos(case, draw) if draw(st.booleans()) else case


add_independence_checks(DECODER_CHECKS, _case_that_may_end)
add_device_check(DECODER_CHECKS, _case)


@DECODER_CHECKS.add(
    why="decoders and policies are crossed in every comparison; with full update sets a cache must not show.",
    mend="decide from the prediction and the canvas; view.confidence beyond the active block, view.age and view.dirty "
    "depend on the policy.",
    share=0.3,
)
def with_every_built_in_policy_fully_refreshed_it_is_the_uncached_run(subject: Subject, draw: Draw) -> None:
    """Over each policy a run ends; with full update sets it is the uncached one."""
    drawn = _case(subject, draw)
    longer = drawn.problem.evolve(gen_length=8, block_length=4)  # later blocks, of several steps
    case = attrs.evolve(drawn, policy=resolve_policy("none"), problem=longer)
    case = _with_eos(case, draw) if draw(st.booleans()) else case
    uncached = case.run()
    for policy in built_in_policies():
        cached = attrs.evolve(case, policy=policy)
        cached.run()
        parted = parting(attrs.evolve(case, policy=refreshing_everything(policy)).run(), uncached)
        if parted is not None:
            raise cached.fail(f"{subject.name} over '{policy.spec}' with every row refreshed is another run: {parted}.")
