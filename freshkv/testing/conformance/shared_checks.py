"""Checks that hold for policies and decoders alike."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import attrs

from freshkv.core.errors import FreshkvError
from freshkv.core.run import Run
from freshkv.core.spec import fields_of
from freshkv.testing.conformance.checks import Checks, Draw, NotAsPromisedError
from freshkv.testing.conformance.observer import INVALID, UNSTEADY, WROTE, Call, methods_of
from freshkv.testing.conformance.runs import Case, parting_of_sequence
from freshkv.testing.conformance.subject import Subject
from freshkv.testing.conformance.values import cloned, difference, same

#: draws a case for a subject
DrawCase = Callable[[Subject, Draw], Case]


def add_option_checks(checks: Checks) -> None:
    """Checks of the class and its options, which need no run."""
    _add_frozen(checks)
    _add_spec(checks)


def _add_frozen(checks: Checks) -> None:
    @checks.add(
        after=(),
        why="a policy or decoder is its options: one that can change in a run, or between two, makes results that "
        "nobody can repeat.",
        mend="decorate the class with attrs.frozen, declare every option as a field, and hold plain values in them "
        "(numbers, text, tuples).",
    )
    def its_options_cannot_change(subject: Subject, draw: Draw) -> None:
        plugin = draw(subject.any())
        if not attrs.has(subject.cls):
            raise NotAsPromisedError(f"{subject.name} is not an attrs class.")
        for field in fields_of(subject.cls):
            value = getattr(plugin, field.name)
            try:
                hash(value)
            except TypeError:
                kind = type(value).__name__
                raise NotAsPromisedError(f"{subject.name}.{field.name} is a {kind}, which can change.") from None
        changeable = copy.copy(plugin)
        for name in (*(field.name for field in fields_of(subject.cls)), "something_new"):
            try:
                setattr(changeable, name, getattr(plugin, name, None))
            except (AttributeError, TypeError):
                continue
            raise NotAsPromisedError(f"{subject.name}.{name} can be set after the object was built.")


def _add_spec(checks: Checks) -> None:
    @checks.add(
        after=(),
        why="experiments, traces and reports hold policies and decoders as text such as 'dual' or 'dllm:kp=10'; what "
        "cannot be read back cannot be repeated.",
        mend="make every option a field of type int, float, bool, str, Literal or one of these or None, let converters "
        "and validators accept what they produce, and do not override 'spec'.",
    )
    def its_spec_string_gives_it_back(subject: Subject, draw: Draw) -> None:
        plugin = draw(subject.any())
        if not isinstance(getattr(subject.cls, "name", None), str):
            raise NotAsPromisedError(f"{subject.name} has no name.")
        try:
            text = plugin.spec
            again = subject.build(text)
            normal = again.spec
        except (FreshkvError, TypeError, ValueError, NameError) as error:
            raise NotAsPromisedError(f"{plugin!r} cannot be written as text and read back: {error}") from error
        if again != plugin or normal != text:
            raise NotAsPromisedError(f"{plugin!r} is written '{text}', which reads as {again!r} ('{normal}').")


def add_call_checks(checks: Checks, kind: str, draw_case: DrawCase, *, remember: str) -> None:
    """Checks of single calls: form, purity, and no state. ``remember`` names where state belongs."""
    _add_form(checks, kind, draw_case)
    _add_purity(checks, kind, draw_case, remember)


def _add_form(checks: Checks, kind: str, draw_case: DrawCase) -> None:
    @checks.add(
        after=(),
        why="the core can only work with answers of the documented form.",
        mend="return masks as bool and tokens as int64, [batch, seq] over the whole canvas of the view; in the first "
        "step nothing is remembered yet, signals are zeros and confidences -inf.",
    )
    def every_answer_has_the_right_form(subject: Subject, draw: Draw) -> None:
        case = draw_case(subject, draw)
        observer, _ = case.observe(kind)
        if INVALID in observer.findings:
            raise case.fail(observer.findings[INVALID])
        if observer.error is not None and not observer.findings and not _is_about_the_run(observer.error):
            raise case.fail(f"A run ended with {type(observer.error).__name__}: {observer.error}")

    @checks.add(
        after=(),
        why="views and predictions are shared: what one call changes, the run and other policies see as facts.",
        mend="compute a new tensor (torch.where, masked_fill, |, &), or clone before you write in place.",
    )
    def nothing_that_it_is_handed_is_written_to(subject: Subject, draw: Draw) -> None:
        case = draw_case(subject, draw)
        observer, _ = case.observe(kind)
        if WROTE in observer.findings:
            raise case.fail(observer.findings[WROTE])


def _add_purity(checks: Checks, kind: str, draw_case: DrawCase, remember: str) -> None:
    form_and_memory = ("every_answer_has_the_right_form", "nothing_that_it_is_handed_is_written_to")

    @checks.add(
        after=form_and_memory,
        why=f"a {kind} is a function of what it is handed; anything else, such as torch's global random numbers or a "
        "count of calls, makes runs that cannot be repeated.",
        mend=f"decide from the arguments and options alone. What is to be known in a later step goes into {remember}"
        + (" Random numbers come from prediction.noise (needs = {'noise'})." if kind == "decoder" else "."),
    )
    def the_same_question_gets_the_same_answer(subject: Subject, draw: Draw) -> None:
        case = draw_case(subject, draw)
        observer, _ = case.observe(kind, ask_twice=True)
        if UNSTEADY in observer.findings:
            raise case.fail(observer.findings[UNSTEADY])

    @checks.add(
        after=(*form_and_memory, "the_same_question_gets_the_same_answer"),
        share=0.6,
        why="one object serves many runs, in any order and in several processes; what it keeps of one run changes the "
        "next.",
        mend=f"a {kind} must not keep state between calls, in itself, its class or a module; return what it wants to "
        f"remember in {remember}",
    )
    def it_keeps_no_state_between_calls_and_runs(subject: Subject, draw: Draw) -> None:
        case, other = draw_case(subject, draw), draw_case(subject, draw)
        plugin = case.policy if kind == "policy" else case.decoder
        observer, _ = case.observe(kind)
        first = tuple(observer.calls)
        observer.calls.clear()
        other.run_watched(observer, kind)
        second = tuple(observer.calls)
        observer.calls.clear()
        case.run_watched(observer, kind)
        for before, after in zip(first, observer.calls, strict=False):
            if not same(before.answer, after.answer):
                raise case.fail(
                    f"{subject.name}.{before.method} gave another answer for the same view in a second run: "
                    f"{difference(before.answer, after.answer)}."
                )
        mixed = [call for pair in zip_longest(first, second) for call in pair if call is not None]
        for someone, words in _copies(case, plugin):
            _replay(case, someone, mixed, f"when two runs took turns {words}")
            _replay(case, someone, mixed[::-1], f"when it was asked in another order {words}")


def _copies(case: Case, plugin: Any) -> Iterator[tuple[Any, str]]:
    yield plugin, "(the same object)"
    cls = type(plugin)
    if getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is not cls:
        yield copy.deepcopy(plugin), "(a copy)"
        return
    try:
        pickled = pickle.loads(pickle.dumps(plugin))
    except Exception as error:  # pickle raises many types
        name = cls.__name__
        raise case.fail(f"{name} cannot be sent to another process: pickling it raised {error!r}.") from error
    yield pickled, "(a pickled copy)"


def _replay(case: Case, plugin: Any, calls: Sequence[Call], when: str) -> None:
    name = type(plugin).__name__
    for call in calls:
        if call.method not in methods_of(plugin):
            continue
        try:
            answer = getattr(plugin, call.method)(*map(cloned, call.arguments))
        except Exception as error:  # a plugin may raise anything
            raise case.fail(f"{name}.{call.method} raised {type(error).__name__} {when}: {error}") from error
        if not same(call.answer, answer):
            raise case.fail(
                f"{name}.{call.method} gave another answer for the same view {when}: {difference(call.answer, answer)}."
            )


_ABOUT_THE_RUN = ("has not decided", "logits are NaN")


def _is_about_the_run(error: Exception) -> bool:
    return any(words in str(error) for words in _ABOUT_THE_RUN)


def add_independence_checks(checks: Checks, draw_case: Callable[..., Case]) -> None:
    """Batch and padding."""

    @checks.add(
        why="an answer that depends on what else is in the batch cannot be compared with anyone's, nor served.",
        mend="reduce along SEQ (dim=1) only, never over the batch; avoid .any(), .max(), .sum() of a whole tensor, "
        "view.tokens[0], and view.sequence. (Selection.priority makes rows depend on the batch by design.)",
    )
    def a_sequence_does_not_depend_on_its_batch(subject: Subject, draw: Draw) -> None:
        case = draw_case(subject, draw, batch=(2, 3))
        problem, run = case.problem, case.run()
        for sequence in range(problem.batch):
            alone = attrs.evolve(case, problem=problem.only(sequence))
            parted = _parting(run, sequence, alone)
            if parted is not None:
                raise case.fail(f"{subject.name} treats sequence {sequence} otherwise than by itself: {parted}.")

    @checks.add(
        why="padding is an accident of the batch that a prompt is in; it must not change what is decoded.",
        mend="leave columns out where view.is_valid is False; count positions from the first valid column or "
        "within view.is_response, not from column 0.",
    )
    def padding_changes_nothing(subject: Subject, draw: Draw) -> None:
        drawn = draw_case(subject, draw, batch=(1, 1))
        padded = drawn.problem if drawn.problem.padding(0) > 0 else drawn.problem.padded(3)
        case = attrs.evolve(drawn, problem=padded)
        run, bare = case.run(), attrs.evolve(case, problem=padded.alone(0))
        parted = _parting(run, 0, bare)
        if parted is not None:
            raise case.fail(f"{subject.name} answers otherwise without the padding: {parted}.")
        refilled = attrs.evolve(case, problem=padded.refilled())
        if _parting(refilled.run(), 0, bare) is not None:
            raise case.fail(f"{subject.name} looks at the tokens that padding happens to hold.")


def _parting(run: Run, sequence: int, alone: Case) -> str | None:
    return parting_of_sequence(run, sequence, alone.run(), alone.problem.shape.layers)
