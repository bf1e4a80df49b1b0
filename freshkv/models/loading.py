"""``load``: from a name, a folder or a hub id to a network that is ready to decode, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import logging

from freshkv.core.errors import CheckpointError, InputError
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.checkpoint import STORED_DTYPES, TensorHeader, check_tensors, read_config, read_headers
from freshkv.models.registry import bundled_models, families
from freshkv.models.source import CONFIG_FILES, HUB_OPTIONS, WEIGHT_FILES, locate

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def load(
    name_or_path: str | PathLike[str],
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **options: Any,
) -> LlamaLikeModel:
    """A network in eval mode, its parameters frozen (``requires_grad`` False).

    ``name_or_path`` is a bundled model ("tiny-llada", "tiny-dream"), a folder with config.json and safetensors
    weights, or a hub id. ``device`` None is the CPU. ``dtype`` is a floating dtype or its name; None and "auto" take
    the checkpoint's own. ``options`` are those of Transformers' ``from_pretrained``, and fields of the configuration
    to override, such as ``mask_token_id``. No tokenizer is needed.

    Raises UnknownNameError for a bare word that is no bundled model; CheckpointError for a checkpoint that is absent,
    of an unknown or unimplemented architecture, incomplete or corrupt, or without a mask token; InputError for a
    device or dtype that cannot be used. Nothing is ever left at random values.
    """
    older_name = options.pop("torch_dtype", None)  # Transformers' own until version 5
    dtype = older_name if dtype is None else dtype
    target = _device(device)
    _check_dtype(dtype)
    hub_options = {name: options.pop(name) for name in HUB_OPTIONS & options.keys()}
    folder = locate(name_or_path, CONFIG_FILES, hub_options)
    family, config, options = _configure(folder, options)
    folder = locate(name_or_path, CONFIG_FILES + WEIGHT_FILES, hub_options)
    headers = read_headers(folder)
    _check_fit(family, config, headers, folder)
    config.dtype = _choose_dtype(dtype, config, headers)
    model = _read(family, config, folder, options)
    if "device_map" not in options:
        cast("torch.nn.Module", model).to(target)
    model.train(False)
    model.requires_grad_(False)
    return model


def _configure(
    folder: Path, options: Mapping[str, Any]
) -> tuple[type[LlamaLikeModel], PreTrainedConfig, dict[str, Any]]:
    """The family, its configuration with overrides from ``options``, and the options that are left."""
    fields = read_config(folder)
    known = families()
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in known:
        raise CheckpointError(
            f"{folder}: model_type is {model_type!r}; supported: {', '.join(sorted(known))}. A plugin can add a family."
        )
    family = known[model_type]
    config_class = cast("type[PreTrainedConfig]", family.config_class)
    overrides = {name: value for name, value in options.items() if name in fields or hasattr(config_class, name)}
    rest = {name: value for name, value in options.items() if name not in overrides}
    try:
        config = config_class.from_dict({**fields, **overrides})
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except (AttributeError, TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{folder}: config.json has a value that is not understood ({error}).") from error
    return family, config, rest


def _check_fit(
    family: type[LlamaLikeModel], config: PreTrainedConfig, headers: Mapping[str, TensorHeader], folder: Path
) -> None:
    with torch.device("meta"):  # names and shapes only
        skeleton = family(deepcopy(config))
    check_tensors(skeleton, headers, folder)
    try:
        skeleton.network_spec  # noqa: B018 - building it checks the token ids
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error


def _read(
    family: type[LlamaLikeModel], config: PreTrainedConfig, folder: Path, options: Mapping[str, Any]
) -> LlamaLikeModel:
    with _no_progress() if folder in bundled_models().values() else nullcontext():
        try:
            return family.from_pretrained(folder, config=config, dtype=config.dtype, **options)
        except TypeError as error:  # what from_pretrained does not know ends as an argument of the class
            names = ", ".join(options) or "none"
            raise InputError(f"from_pretrained cannot use these options ({error}). Given: {names}.") from error


def _device(device: str | torch.device | None) -> torch.device:
    """The device, once a tensor could be made there."""
    try:
        chosen = torch.device("cpu" if device is None else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {device!r} cannot be used here ({reason}). Expected cpu, cuda, cuda:1, ..."
        ) from error
    return chosen


def _check_dtype(dtype: str | torch.dtype | None) -> None:
    if dtype is None or dtype == "auto" or dtype in DTYPES or dtype in DTYPES.values():
        return
    raise InputError(f"dtype {dtype!r} is not supported; expected one of {', '.join(DTYPES)}, auto.")


def _choose_dtype(
    dtype: str | torch.dtype | None, config: PreTrainedConfig, headers: Mapping[str, TensorHeader]
) -> torch.dtype:
    """The dtype asked for, else the one that the configuration names, else that of the weights, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in DTYPES:
        return DTYPES[dtype]
    if isinstance(config.dtype, torch.dtype) and config.dtype in DTYPES.values():
        return config.dtype
    stored = {header.dtype for header in headers.values()}
    return STORED_DTYPES.get(stored.pop(), torch.float32) if len(stored) == 1 else torch.float32


@contextmanager
def _no_progress() -> Iterator[None]:
    """No progress bar: a bundled model is there at once."""
    if not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]
