"""Which families of networks ``load`` knows, and the models that come with the package."""

from __future__ import annotations

from pathlib import Path

from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.dream import DreamConfig, DreamModel
from freshkv.models.llada import LLaDAConfig, LLaDAModelLM

#: one folder for each bundled model, with config.json and model.safetensors
BUNDLED_FOLDER = Path(__file__).parent / "tiny"


def families() -> dict[str, type[LlamaLikeModel]]:
    """``model_type`` of a configuration -> class of the model; each class also follows the ``Network`` protocol."""
    return {LLaDAConfig.model_type: LLaDAModelLM, DreamConfig.model_type: DreamModel}


def bundled_models() -> dict[str, Path]:
    """Name -> folder of the models that come with the package."""
    return {config.parent.name: config.parent for config in sorted(BUNDLED_FOLDER.glob("*/config.json"))}
