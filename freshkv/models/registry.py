"""Which families of networks ``load`` knows, and the models that come with the package."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from inspect import isclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from transformers import PreTrainedModel

from freshkv.core.network import Network
from freshkv.core.plugins import PluginProblem
from freshkv.core.registry import PluginWarning, installed_plugins
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.dream import DreamConfig, DreamModel
from freshkv.models.llada import LLaDAConfig, LLaDAModelLM

#: one folder for each bundled model, with config.json and model.safetensors
BUNDLED_FOLDER = Path(__file__).parent / "tiny"

_PROTOCOL = frozenset(name for name in vars(Network) if not name.startswith("_"))


@cache
def families() -> MappingProxyType[str, type[LlamaLikeModel]]:
    """``model_type`` of a configuration -> class of the model, built-in and plugin.

    Each class follows the ``Network`` protocol and names its configuration in ``config_class``. A plugin's class that
    does not, or whose ``model_type`` is taken, is left out with a warning.
    """
    known: dict[str, type[LlamaLikeModel]] = {
        LLaDAConfig.model_type: LLaDAModelLM,
        DreamConfig.model_type: DreamModel,
    }
    contributions, problems = installed_plugins().contributions("freshkv_models")
    for contribution in contributions:
        given: Any
        for given in contribution.classes:
            reason = _objection(given, known)
            if reason is None:
                # a plugin's class need not inherit from ours: it offers the same methods
                model = cast("type[LlamaLikeModel]", given)
                known[str(given.config_class.model_type)] = model
            else:
                problems.append(PluginProblem(contribution.plugin, contribution.distribution, reason))
    for problem in problems:
        warnings.warn(str(problem), PluginWarning, stacklevel=2)
    return MappingProxyType(known)


def _objection(given: Any, known: Mapping[str, type]) -> str | None:
    if not (isclass(given) and issubclass(given, PreTrainedModel)):
        return f"{given!r} is not a subclass of transformers.PreTrainedModel"
    missing = sorted(name for name in _PROTOCOL if not hasattr(given, name))
    if missing:
        return f"{given.__qualname__} does not follow the Network protocol: it has no {', no '.join(missing)}"
    model_type = getattr(given.config_class, "model_type", "")
    if not model_type:
        return f"{given.__qualname__} has no config_class with a model_type"
    if model_type in known:
        return f"the model_type '{model_type}' is taken by {known[model_type].__qualname__}"
    return None


def bundled_models() -> dict[str, Path]:
    """Name -> folder of the models that come with the package."""
    return {config.parent.name: config.parent for config in sorted(BUNDLED_FOLDER.glob("*/config.json"))}
