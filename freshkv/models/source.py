"""Where a checkpoint comes from: a bundled model, a folder, or the hub. All end as a folder on this computer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from freshkv.core.errors import CheckpointError, UnknownNameError, unknown_name
from freshkv.models.registry import bundled_models

#: options of ``load`` that concern only the download
HUB_OPTIONS = frozenset({"revision", "cache_dir", "token", "force_download", "local_files_only"})
CONFIG_FILES = ("config.json",)
WEIGHT_FILES = ("model*.safetensors", "model.safetensors.index.json")

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def locate(name_or_path: str | PathLike[str], files: Sequence[str], hub_options: Mapping[str, Any]) -> Path:
    """The folder of a checkpoint; of one on the hub, ``files`` (patterns) are downloaded where they are missing.

    A bundled name comes before a folder of that name (``./name`` is the folder), a folder before a hub id.
    Raises CheckpointError for a path that is no folder and a hub id that cannot be had, and UnknownNameError
    for a bare word that names nothing.
    """
    name = str(name_or_path)
    bundled = bundled_models()
    if name in bundled:
        return bundled[name]
    path = Path(name_or_path).expanduser()
    if name and path.is_dir():
        return path
    if name and path.exists():
        raise CheckpointError(f"'{name}' is a file; expected the folder that holds config.json and the weights.")
    if isinstance(name_or_path, str) and _HUB_ID.fullmatch(name) and not name.startswith("."):
        return _download(name, files, hub_options)
    if isinstance(name_or_path, str) and re.fullmatch(r"[\w-][\w.-]*", name):
        raise UnknownNameError(
            f"{unknown_name('model', name, bundled)} Or give a folder, or a hub id such as GSAI-ML/LLaDA-8B-Instruct."
        )
    raise CheckpointError(f"There is no folder '{name}'; expected one that holds config.json and the weights.")


def _download(hub_id: str, files: Sequence[str], options: Mapping[str, Any]) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(files), **options))
    except Exception as error:  # the hub client raises a dozen types that share no base
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise CheckpointError(
            f"'{hub_id}' is no folder here, and the hub did not give it ({type(error).__name__}: {reason}). "
            "Check the name, the connection and your access; offline, only what was downloaded before can be loaded."
        ) from error
