"""Ids of the tokens that have a role: mask, end of text, end of turn. From the configuration and the tokenizer's files.

Only small JSON files are read; no tokenizer is built.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from freshkv.core.errors import CheckpointError
from freshkv.models.checkpoint import read_object

#: files of a tokenizer that name its special tokens, small ones first
TOKEN_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")

#: how the families spell the roles that configurations leave out, the commonest first
MASK_TOKENS = ("<|mdm_mask|>", "<|mask|>", "<|MASK|>", "|<MASK>|", "[MASK]")
END_OF_TURN_TOKENS = ("<|eot_id|>", "<|im_end|>", "<|role_end|>")


@frozen(kw_only=True)
class SpecialTokens:
    """Token ids by role; None where a checkpoint names no such token."""

    mask: int | None  #: what an undecided position holds
    eos: int | None  #: end of text
    end_of_turn: int | None  #: where an Instruct model ends its answer
    bos: int | None
    pad: int | None


def read_special_tokens(folder: Path, fields: Mapping[str, Any]) -> SpecialTokens:
    """From ``fields``, those of config.json, then from the tokenizer that lies in ``folder``, if one does.

    Raises CheckpointError if both name a mask token, and not the same.
    """
    names = _declared(folder)
    return SpecialTokens(
        mask=_mask(folder, fields, names),
        eos=_first(fields.get("eos_token_id"), _id_of(folder, names.get("eos_token"))),
        end_of_turn=_known(folder, END_OF_TURN_TOKENS),
        bos=_first(fields.get("bos_token_id"), _id_of(folder, names.get("bos_token"))),
        pad=_first(fields.get("pad_token_id"), _id_of(folder, names.get("pad_token"))),
    )


def highest_added_token(folder: Path) -> tuple[str, int] | None:
    """The token that was added to the vocabulary last, and its id; None if no file of the tokenizer says."""
    added = {name: number for file in TOKEN_FILES[:3] for name, number in _added(folder, file)}
    return max(added.items(), key=lambda item: item[1], default=None)


def _mask(folder: Path, fields: Mapping[str, Any], names: Mapping[str, str]) -> int | None:
    configured = fields.get("mask_token_id")
    declared = _id_of(folder, names.get("mask_token"))
    if configured is not None and declared is not None and configured != declared:
        raise CheckpointError(
            f"{folder}: config.json has mask_token_id {configured!r}, but the tokenizer's mask token "
            f"{names['mask_token']} is {declared}. One of them belongs to another checkpoint; correct it, or say "
            f"which: freshkv.load(..., mask_token_id=...)."
        )
    return _first(configured, declared if declared is not None else _known(folder, MASK_TOKENS))


def _first(configured: Any, declared: int | None) -> int | None:
    """The id that the configuration gives, the first of several; else that of the tokenizer."""
    if isinstance(configured, (list, tuple)):
        configured = configured[0] if configured else None
    return declared if configured is None else configured


def _known(folder: Path, spellings: tuple[str, ...]) -> int | None:
    return next((number for name in spellings if (number := _id_of(folder, name)) is not None), None)


def _declared(folder: Path) -> dict[str, str]:
    """Role such as ``mask_token`` -> its text."""
    found: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        for role, token in _read(folder, file).items():
            text = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(text, str):
                found[role] = text
    return found


def _id_of(folder: Path, name: str | None) -> int | None:
    if name is None:
        return None
    matches = (number for file in TOKEN_FILES for added, number in _added(folder, file) if added == name)
    return next(matches, None)


def _added(folder: Path, file: str) -> Iterator[tuple[str, int]]:
    """Text and id of the tokens that a file names."""
    fields = _read(folder, file)
    if file == "added_tokens.json":
        yield from ((name, number) for name, number in fields.items() if isinstance(number, int))
    for number, token in fields.get("added_tokens_decoder", {}).items():
        yield token["content"], int(number)
    for token in fields.get("added_tokens", ()):
        yield token["content"], token["id"]


def _read(folder: Path, file: str) -> dict[str, Any]:
    path = folder / file
    return read_object(path) if path.is_file() else {}
