"""Which families of networks ``load`` knows, and the models that come with the package."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers import PreTrainedModel

from freshkv.core.network import Network
from freshkv.core.plugins import Objection
from freshkv.core.registry import Kind, look_up
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.dream import DreamModel
from freshkv.models.fast_dllm import FastDLLMForCausalLM
from freshkv.models.llada import LLaDAModelLM
from freshkv.models.llada2 import LLaDA2MoeModelLM
from freshkv.models.llada_moe import LLaDAMoEModelLM
from freshkv.models.llama import A2DLlamaModel, DiffusionLlamaModel
from freshkv.models.modernbert import DiffusionModernBert
from freshkv.models.qwen2 import A2DQwen2Model, DiffusionQwen2Model
from freshkv.models.qwen3 import A2DQwen3Model, DiffusionQwen3Model
from freshkv.models.sdar import SDARForCausalLM

#: one folder for each bundled model, with config.json and model.safetensors
BUNDLED_FOLDER = Path(__file__).parent / "tiny"

_PROTOCOL = frozenset(name for name in vars(Network) if not name.startswith("_"))


#: all follow the protocol; those that reuse Transformers' own modules do not inherit from ours
BUILT_IN: tuple[Any, ...] = (
    LLaDAModelLM,
    DreamModel,
    DiffusionQwen2Model,
    A2DQwen2Model,
    DiffusionQwen3Model,
    A2DQwen3Model,
    DiffusionLlamaModel,
    A2DLlamaModel,
    LLaDAMoEModelLM,
    SDARForCausalLM,
    LLaDA2MoeModelLM,
    FastDLLMForCausalLM,
    DiffusionModernBert,
)


def _built_in() -> dict[str, type[LlamaLikeModel]]:
    return {cls.config_class.model_type: cls for cls in BUILT_IN}


def _object_to(given: Any) -> Objection | None:
    missing = sorted(name for name in _PROTOCOL if not hasattr(given, name))
    if not missing:
        return None
    reason = f"it does not follow the Network protocol: it has no {', no '.join(missing)}"
    return Objection(reason, f"write {', '.join(missing)} as the protocol freshkv.Network has them")


#: a plugin's class need not inherit from ours, as long as it offers the same methods
FAMILIES: Kind[Any] = Kind(
    "model",
    "freshkv_models",
    PreTrainedModel,
    _built_in,
    _object_to,
    attrgetter("config_class.model_type"),
    "model_type",
)


def families(*, strict: bool = False) -> MappingProxyType[str, type[LlamaLikeModel]]:
    """``model_type`` of a configuration -> class of the model, built-in and plugin.

    Each class follows the ``Network`` protocol and names its configuration in ``config_class``. ``strict``: PluginError
    if a plugin was left out.
    """
    return look_up(FAMILIES, strict=strict)


def bundled_models() -> dict[str, Path]:
    """Name -> folder of the models that come with the package."""
    return {config.parent.name: config.parent for config in sorted(BUNDLED_FOLDER.glob("*/config.json"))}
