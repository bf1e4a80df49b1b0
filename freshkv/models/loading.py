"""``load``: from a name, a folder or a hub id to a network that is ready to decode, or an error that says why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import PreTrainedConfig
from transformers.utils import logging

from freshkv.core.errors import CheckpointError, InputError
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.checkpoint import TensorHeader, check_tensors, read_headers
from freshkv.models.family import configure
from freshkv.models.placement import (
    check_dtype,
    check_one_device,
    check_placement,
    choose_dtype,
    is_quantised,
    unusable,
    usable_device,
)
from freshkv.models.prepacked import Prepacked, prepack
from freshkv.models.quantisation import quantisation
from freshkv.models.registry import bundled_models, families
from freshkv.models.source import CONFIG_FILES, HUB_OPTIONS, WEIGHT_FILES, locate
from freshkv.models.tensor_parallel import (
    check_divisible,
    check_options,
    count_processes,
    excluded_by_division,
    load_options,
    own_device,
)
from freshkv.models.token_ids import TOKEN_FILES, highest_added_token


def load(
    name_or_path: str | PathLike[str],
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    prepacked: Prepacked | Literal[False] = False,
    tensor_parallel: bool = False,
    **options: Any,
) -> LlamaLikeModel:
    """A network in eval mode, its parameters frozen (``requires_grad`` False).

    ``name_or_path`` is a bundled model ("tiny-llada", "tiny-dream"), a folder with config.json and safetensors
    weights, or a hub id. ``device`` None is the CPU. ``dtype`` is a floating dtype or its name; None and "auto" take
    the checkpoint's own. ``options`` are those of Transformers' ``from_pretrained``, and fields of the configuration
    to override, such as ``mask_token_id``, ``logits_shift`` and ``block_causal``. ``quantization_config`` may also be a
    name: "int8", "int4", "nf4". No tokenizer is needed. ``prepacked`` lays the weights out for few rows on a CPU (see
    ``freshkv.models.prepacked``): cached steps are up to half as long, and the model can no longer be trained or moved.
    "compiled" does so for freshkv's own products, for which it needs a C++ compiler: shorter still.

    ``tensor_parallel`` divides the network among the processes that a launcher started (``torchrun --nproc-per-node
    2``): each keeps its share of the heads and of the feed-forward columns on its own device, and all of them make the
    same calls with the same arguments. ``device`` is then left out.

    Raises UnknownNameError for a bare word that is no bundled model; CheckpointError for a checkpoint that is absent,
    of an unknown or unimplemented architecture, incomplete or corrupt, or without a mask token; InputError for a
    device, dtype, ``device_map``, ``quantization_config``, ``prepacked`` or ``tensor_parallel`` that cannot be used
    here. Nothing is ever left at random values.
    """
    older_name = options.pop("torch_dtype", None)  # Transformers' own until version 5
    dtype = older_name if dtype is None else dtype
    check_one_device(device, options)
    check_options(options, tensor_parallel=tensor_parallel)
    if tensor_parallel and prepacked:
        raise excluded_by_division(f"prepacked={prepacked!r}")
    parts = count_processes() if tensor_parallel else 1
    if isinstance(options.get("quantization_config"), str):
        options["quantization_config"] = quantisation(options["quantization_config"])
    target = usable_device(own_device(device) if tensor_parallel else device)
    check_dtype(dtype)
    hub_options = {name: options.pop(name) for name in HUB_OPTIONS & options.keys()}
    folder = locate(name_or_path, CONFIG_FILES + TOKEN_FILES, hub_options)
    family, config, options = configure(folder, options)
    folder = locate(name_or_path, CONFIG_FILES + TOKEN_FILES + WEIGHT_FILES, hub_options)
    headers = read_headers(folder)
    skeleton = _check_fit(family, config, headers, folder)
    config.dtype = choose_dtype(dtype, config, headers)
    options |= _where(skeleton, options, target, parts)
    model = _read(family, config, folder, options)
    if "device_map" not in options and parts == 1:
        cast("torch.nn.Module", model).to(target)
    check_placement(model)
    model.train(False)
    model.requires_grad_(False)
    if prepacked:
        prepack(model, prepacked)
    return model


def _check_fit(
    family: type[LlamaLikeModel], config: PreTrainedConfig, headers: Mapping[str, TensorHeader], folder: Path
) -> LlamaLikeModel:
    """The model without its weights, once it is known to fit them."""
    with torch.device("meta"):  # names and shapes only
        skeleton = family(deepcopy(config))
    if not is_quantised(config):  # tensors of quantised checkpoints are the quantiser's; _read looks at what it made
        check_tensors(skeleton, headers, folder)
    try:
        vocabulary = skeleton.network_spec.vocabulary
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    added = highest_added_token(folder)
    if added is not None and added[1] >= vocabulary:
        raise CheckpointError(
            f"{folder}: the tokenizer's token {added[0]} has id {added[1]}, but the embedding has {vocabulary} rows. "
            "The tokenizer is that of another checkpoint, or tokens were added to it and not to the weights."
        )
    return skeleton


def _where(skeleton: LlamaLikeModel, options: Mapping[str, Any], target: torch.device, parts: int) -> dict[str, Any]:
    """What ``from_pretrained`` must be told of where weights go, where they cannot be moved afterwards."""
    quantised = "quantization_config" in options or is_quantised(skeleton.config)
    if parts > 1:
        if quantised:
            raise excluded_by_division("a quantised checkpoint")
        check_divisible(skeleton, parts, families())
        return load_options(parts)
    return {"device_map": {"": target}} if quantised and "device_map" not in options else {}


def _read(
    family: type[LlamaLikeModel], config: PreTrainedConfig, folder: Path, options: Mapping[str, Any]
) -> LlamaLikeModel:
    with _no_progress() if folder in bundled_models().values() else nullcontext():
        try:
            loaded: Any = family.from_pretrained(
                folder, config=config, dtype=config.dtype, output_loading_info=True, **options
            )
        except TypeError as error:  # what from_pretrained does not know ends as an argument of the class
            names = ", ".join(options) or "none"
            raise InputError(f"from_pretrained cannot use these options ({error}). Given: {names}.") from error
        except (ImportError, ValueError, RuntimeError) as error:
            raise unusable(options, error) from error
    model: LlamaLikeModel = loaded[0]
    missing = sorted(loaded[1]["missing_keys"])
    if missing:
        raise CheckpointError(f"{folder}: Transformers found no weights for {missing[0]}, and nothing may stay random.")
    return model


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
