"""Options of the model as lm-eval hands them over, checked before anything is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs import field, frozen

from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError, did_you_mean
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.models.placement import DTYPES

#: a plus sign before ``field=``, outside quotes
_PLUS = re.compile(r'"(?:[^"\\]|\\.)*"|\+(?=\s*\w+\s*=)')

#: options that lm-eval adds by itself and that mean nothing here
_IGNORED = frozenset({"trust_remote_code"})

AUTO: Literal["auto"] = "auto"

Masking = Literal["count", "rate"]


def spec_from_model_args(text: str) -> str:
    """``d2cache:current_k=16+sigma=5`` to ``d2cache:current_k=16,sigma=5``.

    lm-eval divides its options at commas, so that a plus sign stands for a comma between the fields of a spec string.
    """
    return _PLUS.sub(lambda match: "," if match[0] == "+" else match[0], text)


def _policy(value: Any) -> CachePolicy:
    if value is None:  # what lm-eval makes of policy=None
        return resolve_policy("none")
    return resolve_policy(spec_from_model_args(value) if isinstance(value, str) else value)


def _decoder(value: Any) -> Decoder:
    if value is None:
        return resolve_decoder("confidence")
    return resolve_decoder(spec_from_model_args(value) if isinstance(value, str) else value)


def read_batch_size(value: Any) -> int | Literal["auto"]:
    """A number, or lm-eval's "auto", which may have a number behind it. Raises InputError."""
    if isinstance(value, str) and (value == AUTO or value.startswith(f"{AUTO}:")):
        return AUTO
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(
            f"batch_size is {value!r}; expected a whole number of at least 1, or auto: as many as the memory holds."
        )
    return number


def _path(value: Any) -> Path | None:
    return None if value is None else Path(str(value)).expanduser()


def _device(value: Any) -> str:
    try:
        return str(torch.device("cpu" if value is None else value))
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device is {value!r}; expected cpu, cuda, cuda:1, ...") from error


@frozen(kw_only=True)
class ModelOptions:
    """Everything that one can say of the model in an evaluation.

    Raises InputError, SpecError or UnknownNameError for a value that cannot be used.
    """

    pretrained: str = field(converter=str)  #: as ``freshkv.load`` takes it
    policy: CachePolicy = field(default=None, converter=_policy)
    decoder: Decoder = field(default=None, converter=_decoder)
    gen_length: int | None = None  #: response tokens; None: the task's max_gen_toks, else 256
    block_length: int | None = None  #: response tokens; None: one block
    stop_at_eos: bool = False  #: end a response at its first end token, for speed; the text is cut there anyway
    temperature: float | None = None  #: None: as the task says, else 0
    top_k: int | None = None  #: None: as the task says, else all tokens
    top_p: float | None = None  #: likewise
    use_until: bool = True  #: cut answers at the task's stop strings; False: at end tokens only
    seed: int = 0  #: of sampling and of Monte Carlo; each request has random numbers of its own
    #: slots, the most sequences in a forward pass; "auto": planned from the memory that is free
    batch_size: int | Literal["auto"] = field(default=1, converter=read_batch_size)
    max_batch_size: int | None = None  #: the most slots that "auto" gives; None: 64
    max_length: int | None = None  #: tokens of prompt and response; None: the model's own limit
    mc_samples: int = 128  #: Monte Carlo samples of a log-likelihood
    mc_masking: Masking = "count"  #: "count" as LLaDA's evaluation masks, "rate" as Dream's does
    check_greedy: bool = True  #: decode every target to say whether it is greedy; False: says it is not
    responses: Path | None = field(default=None, converter=_path)  #: folder that keeps results as they come
    dtype: str = "auto"  #: "auto": the checkpoint's own
    device: str = field(default="cpu", converter=_device)
    tensor_parallel: bool = False  #: all processes of the launcher hold the model together, each on its own device
    threads: int | None = None  #: CPU threads; None: one for the bundled models, else as torch is set

    def __attrs_post_init__(self) -> None:
        for name in ("gen_length", "block_length", "max_batch_size", "max_length", "mc_samples", "threads"):
            _check_count(name, getattr(self, name))
        for name in ("stop_at_eos", "use_until", "check_greedy", "tensor_parallel"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected True or False.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}; expected a whole number of at least 0.")
        if self.mc_masking not in ("count", "rate"):
            raise InputError(f"mc_masking is {self.mc_masking!r}; expected count or rate.")
        if self.dtype != "auto" and self.dtype not in DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}, auto.")
        temperature = 0.0 if self.temperature is None else self.temperature
        Sampling(temperature=temperature, top_k=self.top_k, top_p=self.top_p)

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> ModelOptions:
        """From the keyword arguments of lm-eval. Raises InputError for an option that does not exist."""
        known = [attribute.name for attribute in attrs.fields(cls)]
        given = {name: value for name, value in arguments.items() if name not in _IGNORED}
        for name in given:
            if name not in known:
                raise InputError(
                    f"The model freshkv has no option '{name}'.{did_you_mean(name, known)} Its options: "
                    f"{', '.join(known)}. (Between the fields of a spec string write + instead of a comma.)"
                )
        if given.get("pretrained") is None:
            raise InputError("The model freshkv needs pretrained=...: a bundled model, a folder or a hub id.")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; policy and decoder as spec strings in normal form."""
        values = attrs.asdict(self, recurse=False)
        responses = None if self.responses is None else str(self.responses)
        return {**values, "policy": self.policy.spec, "decoder": self.decoder.spec, "responses": responses}


def _check_count(name: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"{name} is {value!r}; expected a whole number of at least 1.")
