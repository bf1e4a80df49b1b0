"""Watches every call of a policy or decoder in a run, and keeps what it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from freshkv.core.check import check_commit, check_selection, check_tensor, describe
from freshkv.core.decoder import Commit, Decoder, Prediction
from freshkv.core.errors import DecoderError, FreshkvError, PolicyError
from freshkv.core.layerwise import probes_apart
from freshkv.core.policy import LayerwisePolicy
from freshkv.core.run import Run
from freshkv.core.selection import Selection
from freshkv.core.view import StepView
from freshkv.testing.conformance.values import cloned, difference, first_place, named_tensors, same, same_tensor
from freshkv.testing.wrapping import wrapped

# what can be found, each the business of one check
INVALID, WROTE, UNSTEADY = "invalid", "wrote", "unsteady"
ELSEWHERE, NOTHING, MASK_TOKEN, BAD_REMASK = "elsewhere", "nothing", "mask token", "bad remask"

_METHODS: dict[str, tuple[str, ...]] = {
    "narrow": ("select",),
    "layerwise": ("select", "probe", "select_layer"),
    "layers apart": ("select", "probe_layer", "select_layer"),
    "decoder": ("decode", "score_tokens"),
    "revocable": ("decode", "score_tokens", "verify"),
}


@frozen(eq=False)
class Call:
    """What was asked and answered."""

    method: str
    arguments: tuple[Any, ...]
    answer: Any


def methods_of(plugin: Any) -> tuple[str, ...]:
    """The methods through which the core asks."""
    if isinstance(plugin, Decoder):
        return _METHODS["revocable" if plugin.revocable else "decoder"]
    if isinstance(plugin, LayerwisePolicy):
        return _METHODS["layers apart" if probes_apart(plugin) else "layerwise"]
    return _METHODS["narrow"]


class Observer:
    """``watched`` behaves as ``plugin`` does, while ``findings`` and ``calls`` fill.

    ``ask_twice`` puts every question a second time, with the same facts in other memory.
    """

    def __init__(self, plugin: Any, *, ask_twice: bool = False) -> None:
        self.name = type(plugin).__name__
        self.findings: dict[str, str] = {}
        self.calls: list[Call] = []
        self.error: Exception | None = None  #: what ended the run early
        self._ask_twice = ask_twice
        self._layers = 0
        self._mask_token_id = -1
        self._held: list[tuple[str, str, Any, Any]] = []
        self.watched = wrapped(plugin, **dict.fromkeys(methods_of(plugin), self._watch))

    def run(self, start: Callable[[Any], Run], layers: int, mask_token_id: int) -> Run | None:
        """``start`` given what is watched; None if that raised, which ``error`` then holds."""
        self._layers, self._mask_token_id = layers, mask_token_id
        self.error = None
        self._held.clear()
        try:
            return start(self.watched)
        except Exception as error:  # a plugin may raise anything
            self.error = error
            return None
        finally:
            self._look_again()

    def _find(self, what: str, message: str) -> None:
        self.findings.setdefault(what, message)

    def _watch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        where = f"{self.name}.{original.__name__}"

        def method(*arguments: Any) -> Any:
            handed = [(name, tensor, tensor.clone()) for value in arguments for name, tensor in named_tensors(value)]
            again = cloned(arguments[0]), *map(cloned, arguments[1:])
            try:
                answer = original(*arguments)
            except Exception as error:
                self._find(INVALID, f"{where} raised {type(error).__name__}{_step(arguments)}: {error}")
                raise
            self._look_at_memory(where, handed)
            self._judge(where, arguments, answer)
            if self._ask_twice:
                self._ask_again(where, original, again, answer)
            self._held += [(where, name, tensor, clone) for name, tensor, clone in handed]
            self.calls.append(Call(original.__name__, arguments, answer))
            return answer

        return method

    def _look_at_memory(self, where: str, handed: list[tuple[str, Any, Any]]) -> None:
        written = sorted({name for name, tensor, before in handed if not same_tensor(tensor, before)})
        if written:
            self._find(WROTE, f"{where} wrote to {', '.join(written)}.")

    def _look_again(self) -> None:
        for where, name, tensor, before in self._held:
            if not same_tensor(tensor, before):
                self._find(WROTE, f"{where} kept {name} and wrote to it later.")

    def _ask_again(self, where: str, original: Callable[..., Any], arguments: Any, answer: Any) -> None:
        second = original(*arguments)
        if not same(answer, second):
            self._find(
                UNSTEADY,
                f"{where} gave another answer when it was asked the same again{_step(arguments)}: "
                f"{difference(answer, second)}.",
            )

    def _judge(self, where: str, arguments: tuple[Any, ...], answer: Any) -> None:
        try:
            self._judge_form(where, arguments, answer)
        except FreshkvError as error:
            what = BAD_REMASK if "masks tokens again" in str(error) else INVALID
            self._find(what, f"{str(error).removesuffix('.')}{_step(arguments)}.")
            return
        if isinstance(answer, Commit):
            self._judge_commit(where, arguments[0], arguments[1], answer)

    def _judge_form(self, where: str, arguments: tuple[Any, ...], answer: Any) -> None:
        view, method = arguments[0], where.rpartition(".")[2]
        if method == "score_tokens":
            if not (hasattr(answer, "shape") and answer.shape == arguments[1].shape and answer.is_floating_point()):
                raise DecoderError(f"{where} returned {describe(answer)}; expected a number for each token.")
        elif method == "decode":
            revocable = bool(getattr(self.watched, "revocable", False))
            check_commit(answer, view.shape, where, revocable=revocable)
        elif method == "select":
            check_selection(answer, view.shape, self._layers, where)
            _check_visible(where, view, answer)
        elif answer is not None or method == "select_layer":
            error = DecoderError if method == "verify" else PolicyError
            check_tensor(answer, view.is_valid.dtype, view.shape, where, error)

    def _judge_commit(self, where: str, view: StepView, prediction: Prediction, commit: Commit) -> None:
        positions, step = commit.positions, _step((view,))
        strays = positions & ~prediction.positions
        if bool(strays.any()):
            sequence, column = first_place(strays)
            reason = _why_not(view, sequence, column)
            self._find(ELSEWHERE, f"{where} committed column {column} of sequence {sequence}{step}, {reason}.")
        if bool((~positions.any(dim=1)).any()):
            self._find(NOTHING, f"{where} committed nothing in one of its sequences{step}.")
        unusable = positions & ((commit.tokens == self._mask_token_id) | (commit.tokens < 0))
        unusable = unusable & prediction.positions
        if bool(unusable.any()):
            sequence, column = first_place(unusable)
            token = int(commit.tokens[sequence, column])
            what = "the mask token" if token == self._mask_token_id else f"token {token}"
            self._find(MASK_TOKEN, f"{where} committed {what} at column {column} of sequence {sequence}{step}.")
        if commit.remask is not None and bool((commit.remask & (view.is_masked | ~view.in_block)).any()):
            sequence, column = first_place(commit.remask & (view.is_masked | ~view.in_block))
            self._find(
                BAD_REMASK,
                f"{where} masked column {column} of sequence {sequence}{step}, which was not decided or lies outside "
                "the active block.",
            )


def _check_visible(where: str, view: StepView, selection: Selection) -> None:
    if selection.visible is None:
        return
    valid = view.is_valid if selection.visible.ndim == 2 else view.is_valid[:, None]
    if bool((~(selection.visible & valid).any(dim=-1)).any()):
        raise PolicyError(f"{where} leaves a sequence no visible key at all.")


def _why_not(view: StepView, sequence: int, column: int) -> str:
    if not bool(view.in_block[sequence, column]):
        return "which lies outside the active block"
    if not bool(view.is_masked[sequence, column]):
        return "which is decided already"
    return "which was not predicted in this step"


def _step(arguments: tuple[Any, ...]) -> str:
    view = arguments[0] if arguments else None
    return f" in step {view.step}" if isinstance(view, StepView) else ""
