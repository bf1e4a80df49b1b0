"""The tokenizer that lies beside a model's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from freshkv.core.errors import CheckpointError
from freshkv.models.checkpoint import CONFIG, read_config
from freshkv.models.source import locate
from freshkv.models.token_ids import MASK_TOKENS

TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a bundled model, a folder or a hub id.

    Raises CheckpointError if none can be read there, or if it is not that of the weights: it has ids beyond the
    embedding, or another mask token than config.json says.
    """
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
    if (folder / CONFIG).is_file():
        _check_vocabulary(folder, tokenizer)
    return tokenizer


def _check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    fields = read_config(folder)
    rows = fields.get("embedding_size") or fields.get("vocab_size")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    word, highest = max(vocabulary.items(), key=lambda item: item[1])
    if isinstance(rows, int) and highest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer's token {word!r} has id {highest}, but by {CONFIG} the embedding has {rows} "
            "rows. The tokenizer is that of another checkpoint, or tokens were added to it and not to the weights."
        )
    mask = fields.get("mask_token_id")
    names = MASK_TOKENS if tokenizer.mask_token is None else (str(tokenizer.mask_token),)
    known = {name: vocabulary[name] for name in names if name in vocabulary}
    if mask is not None and known and mask not in known.values():
        name, number = next(iter(known.items()))
        raise CheckpointError(
            f"{folder}: the tokenizer's mask token {name} is {number}, but {CONFIG} has mask_token_id {mask!r}. "
            "The tokenizer is that of another checkpoint, or one of the two ids is wrong."
        )
