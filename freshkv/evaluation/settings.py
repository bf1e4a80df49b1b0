"""How one request is decoded: what the task says, unless an option of the model overrides it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import frozen

from freshkv.core.errors import InputError
from freshkv.core.sampling import Sampling
from freshkv.evaluation.model_args import ModelOptions

DEFAULT_GEN_LENGTH = 256
#: what tasks call the number of response tokens
LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_KNOWN = frozenset({"until", "do_sample", "temperature", "top_k", "top_p", *LENGTH_NAMES})

#: told what differs from the task's own words; the same message may come again
OnMessage = Callable[[str], None]


@frozen(kw_only=True)
class DecodingSettings:
    """How a response is decoded. Requests that are decoded together share what tokens are drawn by, ``sampling``."""

    gen_length: int  #: response tokens
    block_length: int | None  #: None: one block
    temperature: float
    top_k: int | None
    top_p: float | None

    @property
    def sampling(self) -> Sampling:
        """Temperature, top-k and top-p."""
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return attrs.asdict(self)


@frozen(kw_only=True)
class RequestSettings:
    """The settings of one request, and where its answer ends."""

    decoding: DecodingSettings
    until: tuple[str, ...]  #: stop strings


def settings_of(task: Mapping[str, Any], options: ModelOptions, on_message: OnMessage) -> RequestSettings:
    """From a request's generation arguments. Raises InputError where the two cannot be reconciled."""
    gen_length = _gen_length(task, options, on_message)
    block = options.block_length
    if block is not None and gen_length % block != 0:
        raise InputError(
            f"block_length {block} does not divide the {gen_length} tokens of a response. Set gen_length to a multiple "
            "of it, or another block_length."
        )
    unknown = sorted(set(task) - _KNOWN)
    if unknown:
        on_message(f"The task's generation arguments {', '.join(unknown)} mean nothing to freshkv and are left out.")
    temperature = _temperature(task, options, on_message)
    decoding = DecodingSettings(
        gen_length=gen_length,
        block_length=block,
        temperature=temperature,
        top_k=_filter("top_k", task, options, on_message, sampled=temperature > 0),
        top_p=_filter("top_p", task, options, on_message, sampled=temperature > 0),
    )
    _ = decoding.sampling  # raises InputError for values that nothing can be drawn by
    return RequestSettings(decoding=decoding, until=_until(task, options, on_message))


def _gen_length(task: Mapping[str, Any], options: ModelOptions, on_message: OnMessage) -> int:
    named = next((int(task[name]) for name in LENGTH_NAMES if task.get(name) is not None), None)
    if options.gen_length is None:
        return DEFAULT_GEN_LENGTH if named is None else named
    if named is not None and named != options.gen_length:
        on_message(f"The task asks for {named} response tokens; gen_length={options.gen_length} overrides that.")
    return options.gen_length


def _temperature(task: Mapping[str, Any], options: ModelOptions, on_message: OnMessage) -> float:
    """Greedy where the task says ``do_sample: false``, whatever temperature stands beside it."""
    named = None if task.get("temperature") is None else float(task["temperature"])
    sampled = task.get("do_sample")
    if sampled is None:
        sampled = named is not None and named > 0
    own = (1.0 if named is None else named) if sampled else 0.0
    if options.temperature is None:
        return own
    if (named is not None or "do_sample" in task) and own != options.temperature:
        on_message(f"The task asks for temperature {own:g}; temperature={options.temperature:g} overrides that.")
    return float(options.temperature)


def _filter(name: str, task: Mapping[str, Any], options: ModelOptions, on_message: OnMessage, *, sampled: bool) -> Any:
    """``top_k`` or ``top_p``; a task's own counts only where tokens are drawn."""
    given, named = getattr(options, name), task.get(name)
    if given is None:
        return named if sampled else None
    if sampled and named is not None and named != given:
        on_message(f"The task asks for {name} {named}; {name}={given} overrides that.")
    return given


def _until(task: Mapping[str, Any], options: ModelOptions, on_message: OnMessage) -> tuple[str, ...]:
    named = task.get("until") or []
    stops = [named] if isinstance(named, str) else list(named)
    if stops and not options.use_until:
        on_message("Answers are not cut at the task's stop strings (use_until=False), only at end tokens.")
        return ()
    return tuple(stop for stop in stops if stop)
