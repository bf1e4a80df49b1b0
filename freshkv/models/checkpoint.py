"""Reading a checkpoint's folder: its configuration, and what its weights hold, before anything is loaded.

Transformers fills tensors that are missing with random numbers and goes on; freshkv compares first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from freshkv.core.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

#: what weights may be stored as, in the words of safetensors
STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}

NAMES_SHOWN = 5


@frozen
class TensorHeader:
    """What a weights file says of one tensor without reading it."""

    shape: tuple[int, ...]
    dtype: str  #: a key of STORED_DTYPES, or something that freshkv does not read


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of ``config.json``; raises CheckpointError if there is none or it is not a JSON object."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; expected the folder of a checkpoint.")
    return read_object(path)


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Name -> header of every tensor of the checkpoint.

    Raises CheckpointError if there are no safetensors weights, a shard is missing, or a file is truncated or corrupt.
    """
    headers: dict[str, TensorHeader] = {}
    for file in _weight_files(folder):
        headers.update(_read_file_headers(file))
    return headers


def check_tensors(model: PreTrainedModel, headers: Mapping[str, TensorHeader], folder: Path) -> None:
    """Raise CheckpointError unless ``headers`` are the tensors of ``model``, by name, shape and a dtype
    that freshkv reads.

    Of tensors that ``model`` ties, one name is enough. ``model`` may lie on the meta device.
    """
    expected: dict[str, Tensor] = model.state_dict(keep_vars=True)
    _check_vocabulary(model, expected, headers, folder)
    present = {id(tensor) for name, tensor in expected.items() if name in headers}
    missing = [name for name, tensor in expected.items() if id(tensor) not in present]
    # inverse frequencies follow from the configuration; old files carry them
    unexpected = [name for name in headers if name not in expected and not name.endswith("inv_freq")]
    reshaped = [
        f"{name} {header.shape} instead of {tuple(expected[name].shape)}"
        for name, header in headers.items()
        if name in expected and header.shape != tuple(expected[name].shape)
    ]
    unread = [
        f"{name} {header.dtype}"
        for name, header in headers.items()
        if name in expected and header.dtype not in STORED_DTYPES
    ]
    problems = (
        _problem("missing", missing),
        _problem("of another shape than the configuration says", reshaped),
        _problem(f"stored as something else than {', '.join(STORED_DTYPES)}", unread),
        _problem("not part of this architecture", unexpected),
    )
    if any(problems):
        raise CheckpointError(
            f"{folder}: the weights do not fit {type(model).__name__} as {CONFIG} describes it. "
            f"Tensors {'; '.join(filter(None, problems))}."
        )


def _check_vocabulary(
    model: PreTrainedModel, expected: Mapping[str, Tensor], headers: Mapping[str, TensorHeader], folder: Path
) -> None:
    """The likeliest wrong shape gets its own words: tokens were added to one side only."""
    embedding = model.get_input_embeddings().weight
    for name, tensor in expected.items():
        if tensor is embedding and name in headers:
            rows, configured = headers[name].shape[0], tensor.size(0)
            if rows != configured:
                raise CheckpointError(
                    f"{folder}: the embedding {name} has {rows} rows, but by {CONFIG} the vocabulary has {configured}. "
                    f"Correct vocab_size (LLaDA: embedding_size) in {CONFIG}."
                )


def _problem(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"{kind}: {', '.join(names[:NAMES_SHOWN])}{more}"


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return _shards(folder)
    if any(folder.glob("pytorch_model*.bin*")):
        raise CheckpointError(
            f"{folder} holds pytorch_model.bin, and freshkv reads safetensors only: a pickle can run any code when it "
            "is opened. Convert it with Transformers' save_pretrained, or take a revision that has safetensors."
        )
    raise CheckpointError(f"{folder} has no weights; expected {WEIGHTS}, or {INDEX} and its shards.")


def _shards(folder: Path) -> list[Path]:
    index = read_object(folder / INDEX)
    names = index.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{folder / INDEX} has no weight_map from tensors to files.")
    shards = [folder / name for name in sorted(set(names.values()))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {_problem('shards missing that the index names', missing)}. The download may be incomplete."
        )
    return shards


def _read_file_headers(file: Path) -> dict[str, TensorHeader]:
    try:
        with safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - not a mapping
            return {name: TensorHeader(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is truncated or corrupt ({error}). Download or save it again.") from error


def read_object(path: Path) -> dict[str, Any]:
    """The fields of a JSON file; raises CheckpointError if it cannot be read or holds no object."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}).") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds a JSON {type(fields).__name__}; expected an object.")
    return fields
