"""Everything that one evaluation of one task is run with; what is written beside its results."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import field, frozen

from freshkv.core.errors import InputError
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.evaluation.model_args import ModelOptions

#: fields that the model is told; the others are for lm-eval
_OF_THE_MODEL = ("gen_length", "temperature", "top_k", "top_p", "stop_at_eos", "use_until", "seed")


def _policy_spec(value: str) -> str:
    return resolve_policy(value).spec


def _decoder_spec(value: str) -> str:
    return resolve_decoder(value).spec


@frozen(kw_only=True)
class TaskSettings:
    """One task with one policy and decoder. None: as the task says.

    Raises InputError, SpecError or UnknownNameError for values that cannot be used.
    """

    task: str  #: as the user named it
    harness_task: str  #: what lm-eval calls it
    policy: str = field(default="none", converter=_policy_spec)  #: spec string in normal form
    decoder: str = field(default="confidence", converter=_decoder_spec)  #: likewise
    few_shot: int | None = None  #: examples in the prompt
    gen_length: int | None = None  #: response tokens
    block_length: int | None = None  #: response tokens; None: one block
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    stop_at_eos: bool = False  #: end a response at its first end token
    use_until: bool = True  #: cut answers at the task's stop strings
    chat: bool = False  #: prompts in the tokenizer's chat template
    multi_turn: bool = True  #: of a chat: few-shot examples as turns of their own
    runs_code: bool = False  #: the task executes what the model writes
    preset: str | None = None  #: where the settings come from
    overridden: tuple[str, ...] = ()  #: fields that the user set against the preset

    def __attrs_post_init__(self) -> None:
        if self.few_shot is not None and (
            isinstance(self.few_shot, bool) or not isinstance(self.few_shot, int) or self.few_shot < 0
        ):
            raise InputError(f"few_shot is {self.few_shot!r}; expected a whole number of at least 0.")
        for name in ("chat", "multi_turn", "runs_code"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected True or False.")
        self.model_options(pretrained="-")
        if self.gen_length is not None and self.block_length is not None and self.gen_length % self.block_length:
            raise InputError(
                f"{self.task}: block_length {self.block_length} does not divide the {self.gen_length} tokens of a "
                "response. Set one of them so that it does."
            )

    def model_options(self, **others: Any) -> ModelOptions:
        """Options of the model, with ``others`` that are not a task's."""
        own = {name: getattr(self, name) for name in _OF_THE_MODEL}
        return ModelOptions(policy=self.policy, decoder=self.decoder, block_length=self.block_length, **own, **others)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**attrs.asdict(self), "overridden": list(self.overridden)}
