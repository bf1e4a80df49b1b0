"""How large a model is, from its configuration alone: no weights are read."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from attrs import frozen
from transformers import PreTrainedConfig

from freshkv.core.network import NetworkSpec
from freshkv.models import DreamConfig, LLaDAConfig
from freshkv.models.family import configure
from freshkv.models.registry import families
from freshkv.models.source import CONFIG_FILES, locate

#: of checkpoints whose sizes are known without a download: what differs from the defaults of their configuration
_LLADA = {"mlp_hidden_size": 12288, "mask_token_id": 126336, "eos_token_id": 126081}
_DREAM = {"mask_token_id": 151666, "eos_token_id": 151643}
OFFICIAL: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "GSAI-ML/LLaDA-8B-Base": (LLaDAConfig, _LLADA),
    "GSAI-ML/LLaDA-8B-Instruct": (LLaDAConfig, _LLADA),
    "GSAI-ML/LLaDA-1.5": (LLaDAConfig, _LLADA),
    "Dream-org/Dream-v0-Base-7B": (DreamConfig, _DREAM),
    "Dream-org/Dream-v0-Instruct-7B": (DreamConfig, _DREAM),
}


@frozen
class ModelShape:
    """The numbers of a network, and how many weights it has."""

    spec: NetworkSpec
    parameters: int

    @classmethod
    def of(cls, model: str) -> ModelShape:
        """Of an official checkpoint by its hub id, a bundled model, or a folder. Raises CheckpointError."""
        if model in OFFICIAL:
            config_class, fields = OFFICIAL[model]
            family = families()[cast("Any", config_class).model_type]
            config = config_class(**fields)
        else:
            family, config, _ = configure(locate(model, CONFIG_FILES, {}), {})
        with torch.device("meta"):  # shapes only
            skeleton = family(deepcopy(config))
        return cls(skeleton.network_spec, sum(weight.numel() for weight in skeleton.parameters()))
