"""Text to token ids and back."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from freshkv.core.errors import InputError


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str, *, raw: bool = False) -> tuple[int, ...]:
    """Token ids of ``text``, in the tokenizer's chat template where it has one, unless ``raw``.

    Raises InputError for a text without tokens.
    """
    if tokenizer.chat_template and not raw:
        turns = [{"role": "user", "content": text}]
        text = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
    ids = tokenizer.encode(text)
    if not ids:
        raise InputError("The prompt is empty; expected at least one token.")
    return tuple(ids)


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Response tokens as text, without special tokens."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))
