"""One network divided among several processes, through Transformers' own tensor parallel.

A family's configuration declares in ``base_model_tp_plan`` how its modules are divided, in Transformers' words and from
the root of the model; Transformers reads each process's share of the weights and adds up between the processes. What is
here checks first that it can be done, and says so in words; ``ProcessDivision`` brings together what the core needs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import reduce
from math import gcd
from typing import Any

import torch
from torch import Tensor, distributed
from transformers import PreTrainedModel
from transformers.distributed.configuration_utils import DistributedConfig

from freshkv.core.division import UNDIVIDED, DividedHeads, Division
from freshkv.core.errors import InputError

#: of the ends of a network: every process holds some tokens' rows; embeddings are added up, logits gathered
EMBEDDING, HEAD = "embedding_rowwise", "colwise_gather_output"
#: of linear layers within: every process computes some outputs, or adds up what it makes of some inputs
OUTPUTS, INPUTS = "colwise", "rowwise"

#: options of ``from_pretrained`` that say otherwise what ``tensor_parallel`` says
_OTHER_WORDS = ("tp_plan", "tp_size", "device_mesh", "distributed_config")
#: a rule that some releases of Transformers add where embedding and head are one, whatever the embedding is called
_ADDED = "embed_tokens"
#: what a launcher tells each of its processes
_TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE")


class ProcessDivision(DividedHeads):
    """The processes of a group, each with its share of the heads."""

    def __init__(self, group: distributed.ProcessGroup) -> None:
        self._group = group
        self._first = distributed.get_global_rank(group, 0)
        self.parts = distributed.get_world_size(group)

    def total(self, value: Tensor) -> Tensor:
        """See ``Division``."""
        total = value.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=self._group)
        return total

    def first(self, value: Tensor) -> Tensor:
        """See ``Division``."""
        told = value.to(torch.uint8 if value.dtype == torch.bool else value.dtype, copy=True).contiguous()
        distributed.broadcast(told, src=self._first, group=self._group)
        return told.to(value.dtype)


def division_among(parts: int | None, mesh: Any) -> Division:
    """How a model of Transformers is divided whose ``tp_size`` is ``parts``, read on a device mesh."""
    if parts is None or parts == 1:
        return UNDIVIDED
    return ProcessDivision(mesh.get_group() if mesh.ndim == 1 else mesh.get_group("tp"))


def count_processes() -> int:
    """Processes that a launcher started. Raises InputError where none did."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    if any(name not in os.environ for name in _TOLD):
        raise InputError(
            "tensor_parallel=True divides the model among processes, and no launcher started any. "
            "Run the script with torchrun --nproc-per-node 2 script.py; one process for each device."
        )
    return int(os.environ["WORLD_SIZE"])


def is_first_process() -> bool:
    """Whether this process is the first that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def check_options(options: Mapping[str, Any], *, tensor_parallel: bool) -> None:
    """Raise InputError for options of ``load`` that do not go with ``tensor_parallel``, or are it in other words."""
    given = [name for name in _OTHER_WORDS if name in options]
    if given:
        raise InputError(f"{given[0]} is not taken here; tensor_parallel=True divides the model among all processes.")
    excluded = [name for name in ("device_map", "quantization_config") if options.get(name) is not None]
    if tensor_parallel and excluded:
        raise excluded_by_division(excluded[0])


def excluded_by_division(what: str) -> InputError:
    """The error for what does not go with tensor parallel."""
    return InputError(
        f"tensor_parallel=True and {what} exclude each other: every process keeps its share of plain weights on its "
        "own device. Leave one out."
    )


def own_device(device: str | torch.device | None) -> torch.device:
    """Where Transformers puts this process's share: the accelerator that is its own, or the CPU where there is none.

    Raises InputError if ``device`` is another one, or there are fewer accelerators than processes.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = "cpu" if accelerator is None else accelerator.type
    number = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device(kind) if accelerator is None else torch.device(kind, number)
    if accelerator is not None and number >= torch.accelerator.device_count():
        raise InputError(
            f"Process {number} of this machine has no {kind} device: there are {torch.accelerator.device_count()}. "
            "Start as many processes as there are devices."
        )
    if device is not None and torch.device(device) not in (torch.device(kind), own):
        raise InputError(
            f"device={str(device)!r} does not go with tensor_parallel=True, which puts the share of this process on "
            f"{own}. Leave device out; to stay on the CPU, hide the accelerators from the processes."
        )
    return own


def can_divide(family: Any) -> bool:
    """Whether a family says how it is divided."""
    return bool(getattr(family.config_class, "base_model_tp_plan", None)) and hasattr(family, "division")


def check_divisible(skeleton: PreTrainedModel, parts: int, families: Mapping[str, Any]) -> None:
    """Raise InputError unless ``parts`` processes can share ``skeleton``, a model on the meta device, equally.

    ``families`` are those that there are, by name.
    """
    if not can_divide(type(skeleton)):
        able = [name for name, family in sorted(families.items()) if can_divide(family)]
        raise InputError(
            f"tensor_parallel=True: models of type {skeleton.config.model_type!r} cannot be divided among processes. "
            f"Those that can: {', '.join(able)}."
        )
    spec: Any = skeleton.network_spec
    sizes = {"heads": spec.heads, "key-value heads": spec.kv_heads, **_sizes(skeleton)}
    for what, size in sizes.items():
        if size % parts != 0:
            common = reduce(gcd, sizes.values())
            possible = [str(count) for count in range(2, min(common, 64) + 1) if common % count == 0]
            raise InputError(
                f"tensor_parallel=True: {parts} processes cannot share {size} {what} equally. "
                + (f"Start {' or '.join(possible)}." if possible else "This model cannot be divided.")
            )


def _sizes(skeleton: PreTrainedModel) -> dict[str, int]:
    """What is divided of each kind of module of the plan, in words. Raises InputError for a rule without modules."""
    plan = dict(skeleton.config.base_model_tp_plan or {})
    plan.pop(_ADDED, None)
    modules = dict(skeleton.named_modules())
    sizes: dict[str, int] = {}
    for rule, style in plan.items():
        pattern = re.compile(re.escape(rule).replace(r"\*", r"\d+"))
        matched = [module for name, module in modules.items() if pattern.fullmatch(name)]
        if not matched:
            raise InputError(
                f"tensor_parallel=True: the plan of {type(skeleton).__name__} names {rule}, and it has no such module."
            )
        side = {INPUTS: "in_features", EMBEDDING: "num_embeddings"}.get(style, "out_features")
        what = {"num_embeddings": "tokens", "in_features": "inputs"}.get(side, "outputs")
        sizes[f"{what} of {rule}"] = getattr(matched[0], side)
    return sizes


def load_options(parts: int) -> dict[str, Any]:
    """The options of ``from_pretrained`` that divide a model by its plan."""
    if not hasattr(PreTrainedModel, "prepare_distribute_model"):  # older releases of Transformers have two arguments
        return {"tp_plan": "auto", "tp_size": parts}
    return {"distributed_config": DistributedConfig(tp_size=parts, tp_plan="auto")}
