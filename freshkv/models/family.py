"""From ``config.json`` to a family and its configuration: which class, which fields, which of them are overridden."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig

from freshkv.core.errors import CheckpointError
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.checkpoint import read_config
from freshkv.models.registry import families
from freshkv.models.token_ids import read_special_tokens

#: architectures that name a family of their own although their ``model_type`` is that of another
ARCHITECTURES = {"LLaDAMoEModel": "lladamoe", "LLaDAMoEModelLM": "lladamoe"}


def configure(
    folder: Path, options: Mapping[str, Any]
) -> tuple[type[LlamaLikeModel], PreTrainedConfig, dict[str, Any]]:
    """The family, its configuration with overrides from ``options``, and the options that are left.

    Token ids that config.json leaves out are those of the tokenizer's files. Raises CheckpointError for an unknown
    family and a value that is not understood.
    """
    fields = read_config(folder)
    family = _family(folder, fields)
    config_class = cast("type[PreTrainedConfig]", family.config_class)
    overrides = {name: value for name, value in options.items() if name in fields or hasattr(config_class, name)}
    rest = {name: value for name, value in options.items() if name not in overrides}
    if "quantization_config" in overrides:  # from_pretrained wants it as an argument, too
        rest["quantization_config"] = overrides.pop("quantization_config")
    given = _with_tokens(folder, {**fields, **overrides}, told="mask_token_id" in overrides)
    try:
        config = config_class.from_dict(given)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    except (AttributeError, TypeError, ValueError, StrictDataclassError) as error:
        raise CheckpointError(f"{folder}: config.json has a value that is not understood ({error}).") from error
    return family, config, rest


def _family(folder: Path, fields: Mapping[str, Any]) -> type[LlamaLikeModel]:
    known = families()
    name = fields.get("model_type")
    architectures = fields.get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        name = ARCHITECTURES.get(architectures[0], name)
    if not isinstance(name, str) or name not in known:
        raise CheckpointError(
            f"{folder}: model_type is {name!r}; supported: {', '.join(sorted(known))}. A plugin can add a family."
        )
    return known[name]


def _with_tokens(folder: Path, fields: Mapping[str, Any], *, told: bool) -> dict[str, Any]:
    """``fields``, with the token ids that they lack; ``told``: the mask token was, whatever the tokenizer says."""
    tokens = read_special_tokens(folder, {**fields, "mask_token_id": None} if told else fields)
    found = {"mask_token_id": tokens.mask, "eos_token_id": tokens.eos}
    return {
        **fields,
        **{name: token for name, token in found.items() if fields.get(name) is None and token is not None},
    }
