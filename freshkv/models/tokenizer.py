"""The tokenizer that lies beside a model's weights."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from freshkv.core.errors import CheckpointError
from freshkv.models.source import locate

TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a bundled model, a folder or a hub id. Raises CheckpointError if none can be read there."""
    folder = locate(model, TOKENIZER_FILES, {})
    if (folder / "tokenizer.json").is_file():
        kind: Any = PreTrainedTokenizerFast
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        kind = Qwen2Tokenizer  # what Dream's own tokenizer is, and its repository has no tokenizer.json
    else:
        raise CheckpointError(
            f"{folder} holds no tokenizer; expected tokenizer.json (or vocab.json and merges.txt) beside the weights. "
            "Copy it from the checkpoint that the model comes from, or call freshkv.generate with token ids in Python."
        )
    try:
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({type(error).__name__}: {error}).") from error
    return tokenizer
