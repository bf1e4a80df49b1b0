"""Prompts as token ids that fit the model."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from transformers import PreTrainedTokenizerBase

from freshkv.core.errors import InputError
from freshkv.core.network import Network

#: fields of configurations that say how long a sequence may be
LIMITS = ("max_sequence_length", "max_position_embeddings")


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool | None = None) -> list[int]:
    """Token ids. Special tokens are added as the tokenizer does, but no second BOS to a text that begins with one."""
    if add_special_tokens is None:
        bos = tokenizer.bos_token
        add_special_tokens = not (isinstance(bos, str) and text.startswith(bos))
    return list(tokenizer.encode(text, add_special_tokens=add_special_tokens))


def apply_chat_template(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    """Turns as one text; without a generation prompt the last turn stays open, to be continued.

    Raises InputError for a tokenizer without a template.
    """
    if not tokenizer.chat_template:
        raise InputError(
            "The tokenizer of this checkpoint has no chat template. Leave out --apply_chat_template (in freshkv eval: "
            "--no-chat), or add the template to tokenizer_config.json."
        )
    text: Any = tokenizer.apply_chat_template(
        turns,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
    )
    return str(text)


def longest_sequence(model: Network) -> int | None:
    """Tokens that the model's configuration allows; None where it does not say."""
    config = getattr(model, "config", None)
    limits = (getattr(config, name, None) for name in LIMITS)
    return next((limit for limit in limits if isinstance(limit, int)), None)


@frozen
class Truncated:
    """A prompt, and how much of it was left out."""

    ids: tuple[int, ...]
    dropped: int  #: tokens, at the left


def truncate_left(ids: list[int], room: int) -> Truncated:
    """The last ``room`` tokens. Raises InputError if there is no room at all, or no token."""
    if not ids:
        raise InputError("A prompt of the task is empty; expected at least one token.")
    if room < 1:
        raise InputError(
            f"The response leaves {room} tokens for the prompt. Set gen_length lower, or max_length higher."
        )
    dropped = max(len(ids) - room, 0)
    return Truncated(tuple(ids[dropped:]), dropped)
