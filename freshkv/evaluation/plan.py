"""What an evaluation will take: memory from the model's shape, time and money from the time of a step.

Nothing is measured or loaded here; whatever is not computed is an input that is shown with the result.
"""

from __future__ import annotations

import math
import tomllib
from importlib.resources import files
from typing import Any

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, gt

from freshkv.core.capacity import SequenceBytes, Workload
from freshkv.core.errors import InputError
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.spec import split_spec
from freshkv.evaluation.shapes import ModelShape
from freshkv.evaluation.task_settings import TaskSettings
from freshkv.models.placement import DTYPES

GIGABYTE = 1e9
SECONDS_PER_HOUR = 3600
#: problems of a benchmark's test split
PROBLEMS = {"gsm8k": 1319, "math-500": 500, "humaneval": 164, "mbpp": 500}


@frozen(kw_only=True)
class PlanInputs:
    """What a plan assumes."""

    problems: int = field(validator=ge(1))
    prompt_tokens: int = field(default=1024, validator=ge(1))  #: of the longest prompts
    gen_length: int = field(validator=ge(1))  #: response tokens
    block_length: int = field(validator=ge(1))  #: response tokens
    batch_size: int = field(default=1, validator=ge(1))  #: sequences in a forward pass
    step_seconds: float = field(validator=gt(0))  #: of a forward pass; in a batch, one sequence's share of it
    tokens_per_step: float = field(default=1.0, validator=gt(0))  #: committed, of one sequence
    devices: int = field(default=1, validator=ge(1))
    tensor_parallel: bool = False  #: the devices hold one model together; else each has one and a share of problems
    price_per_hour: float = field(default=0.0, validator=ge(0))  #: of one device, in any currency
    dtype: str = "bfloat16"  #: of weights and caches

    @property
    def parts(self) -> int:
        """Devices that hold a model together."""
        return self.devices if self.tensor_parallel else 1


@frozen(kw_only=True)
class Plan:
    """Bytes of one device, hours of all."""

    inputs: PlanInputs
    weight_bytes: int
    cache_bytes: int  #: of a batch: keys and values, and what the policy has kept besides
    working_bytes: int  #: the largest tensors of a pass that computes everything; an estimate
    steps: int  #: forward passes of single sequences, on the device that has most to do
    hours: float  #: until the last device is done
    device_hours: float
    cost: float

    @property
    def total_bytes(self) -> int:
        """Of one device."""
        return self.weight_bytes + self.cache_bytes + self.working_bytes

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**attrs.asdict(self), "total_bytes": self.total_bytes}


def plan_evaluation(shape: ModelShape, policy: str, inputs: PlanInputs) -> Plan:
    """The plan for a model with ``policy``, a spec. Raises InputError if the devices cannot hold it together."""
    if shape.spec.kv_heads % inputs.parts != 0:
        raise InputError(
            f"tensor_parallel: {inputs.parts} devices cannot share {shape.spec.kv_heads} key-value heads equally."
        )
    each = sequence_bytes(shape, policy, inputs)
    steps = steps_of(inputs)
    hours = steps * inputs.step_seconds / SECONDS_PER_HOUR
    # a device that is done early waits for the others, and is paid for
    device_hours = hours * inputs.devices
    return Plan(
        inputs=inputs,
        weight_bytes=-(-shape.parameters // inputs.parts) * _element_size(inputs.dtype),
        cache_bytes=inputs.batch_size * (each.total - each.working),
        working_bytes=inputs.batch_size * each.working,
        steps=steps,
        hours=hours,
        device_hours=device_hours,
        cost=device_hours * inputs.price_per_hour,
    )


def steps_of(inputs: PlanInputs) -> int:
    """Forward passes of the model that has most problems: their number, times the steps of a response."""
    models = inputs.devices // inputs.parts
    return -(-inputs.problems // models) * math.ceil(inputs.gen_length / inputs.tokens_per_step)


def sequence_bytes(shape: ModelShape, policy: str, inputs: PlanInputs) -> SequenceBytes:
    """What each sequence of a batch takes on one device, which may hold a part of the heads."""
    workload = Workload(
        policy=resolve_policy(policy),
        decoder=resolve_decoder("confidence"),
        seq=inputs.prompt_tokens + inputs.gen_length,
        gen_length=inputs.gen_length,
        block_length=inputs.block_length,
        element_size=_element_size(inputs.dtype),
    )
    spec, parts = shape.spec, inputs.parts
    mine = attrs.evolve(
        spec,
        heads=spec.heads // parts,
        kv_heads=spec.kv_heads // parts,
        feed_forward_width=-(-spec.feed_forward_width // parts),
    )
    return workload.bytes(mine)


def inputs_of(settings: TaskSettings, step_seconds: float, **others: Any) -> PlanInputs:
    """The inputs that ``settings`` decide; ``others`` are the user's own."""
    if settings.gen_length is None:
        raise InputError(f"A plan needs the number of response tokens of {settings.task}: set gen_length.")
    problems = others.pop("problems", None)
    problems = PROBLEMS.get(settings.task) if problems is None else problems
    if problems is None:
        raise InputError(f"How many problems {settings.task} has is not known here: set --problems.")
    block = settings.gen_length if settings.block_length is None else settings.block_length
    return PlanInputs(
        problems=problems, gen_length=settings.gen_length, block_length=block, step_seconds=step_seconds, **others
    )


def published_step_seconds(variant: str, task: str, policy: str) -> float | None:
    """Seconds of a step with one token, batch 1, on ``published_device``; None if it was not published."""
    name, _ = split_spec(policy)
    for row in _published()["speeds"]:
        if (row["variant"], row["task"]) == (variant, task) and name in row["speedups"]:
            return float(1 / (row["tokens_per_second"] * row["speedups"][name]))
    return None


def published_device() -> str:
    """What published steps were timed on."""
    return str(_published()["device"])


def _published() -> dict[str, Any]:
    return tomllib.loads((files("freshkv.evaluation") / "published_speed.toml").read_text("utf-8"))


def _element_size(dtype: str) -> int:
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; a plan needs one of {', '.join(DTYPES)}.")
    kind: torch.dtype = DTYPES[dtype]
    return kind.itemsize
