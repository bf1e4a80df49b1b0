"""How the checkpoints' authors, and the papers that compare policies, decode with them: arguments for ``generate``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import frozen

from freshkv.core.errors import InputError
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.checkpoint import CONFIG, read_config
from freshkv.models.token_ids import SpecialTokens, read_special_tokens

#: what checkpoints that were tuned to follow instructions have in their names, and what others have
_TUNED = re.compile(r"instruct|chat|llada-1\.5|-sft|-rl", re.IGNORECASE)
_BASE = re.compile(r"base", re.IGNORECASE)

#: nucleus of the families whose authors sample from one; d2Cache's evaluation (arXiv:2509.23094) keeps it
_TOP_P = {"Dream": 0.9}


@frozen(kw_only=True)
class PublishedDefaults:
    """The settings of published evaluations (d2Cache's repository; for block-causal networks, the authors' own)."""

    gen_length: int = 256  #: tokens of a response; humaneval and mbpp take 512
    block_length: int | None  #: tokens; None: one block, or the network's own
    decoder: str = "confidence"  #: one token a step
    temperature: float = 0.0
    top_p: float | None = None
    eos_token_id: int | None  #: end of text
    end_of_turn: int | None  #: what an Instruct model writes after its answer; None where there is no tokenizer
    instruct: bool  #: tuned to follow instructions: prompts take the chat template

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``freshkv.generate``; those that ``generate`` has no name for are left out."""
        names = ("gen_length", "block_length", "decoder", "temperature", "top_p", "eos_token_id")
        return {name: getattr(self, name) for name in names}


def published_defaults(model: LlamaLikeModel, *, instruct: bool | None = None) -> PublishedDefaults:
    """How ``model``, as ``freshkv.load`` returns it, is decoded in published evaluations.

    Instruct models decode in blocks of 32, Base models in one block, block-causal networks in their own blocks.
    ``instruct`` None: by the name of the checkpoint; InputError if that says neither.
    """
    spec = model.network_spec
    tuned = _is_tuned(Path(str(model.config.name_or_path))) if instruct is None else instruct
    return PublishedDefaults(
        block_length=32 if tuned and spec.block_causal is None else None,
        top_p=_TOP_P.get(model.config.model_type),
        eos_token_id=spec.eos_token_id,
        end_of_turn=special_tokens(model).end_of_turn,
        instruct=tuned,
    )


def special_tokens(model: LlamaLikeModel) -> SpecialTokens:
    """The ids that have a role in ``model``: its own mask and end of text, the others from where it was loaded."""
    spec = model.network_spec
    known = {"mask_token_id": spec.mask_token_id, "eos_token_id": spec.eos_token_id}
    folder = Path(str(model.config.name_or_path))
    if not (folder / CONFIG).is_file():  # made here, or moved since
        return SpecialTokens(mask=spec.mask_token_id, eos=spec.eos_token_id, end_of_turn=None, bos=None, pad=None)
    found = read_special_tokens(folder, {**read_config(folder), "mask_token_id": None, "eos_token_id": None})
    return SpecialTokens(
        mask=known["mask_token_id"],
        eos=known["eos_token_id"],
        end_of_turn=found.end_of_turn,
        bos=found.bos,
        pad=found.pad,
    )


def _is_tuned(folder: Path) -> bool:
    # the hub's cache is models--owner--name/snapshots/commit
    name = folder.parents[1].name if folder.parent.name == "snapshots" else folder.name
    tuned, base = _TUNED.search(name), _BASE.search(name)
    if (tuned is None) == (base is None):
        raise InputError(
            f"The name '{name}' does not say whether this is a Base or an Instruct model, which decode differently: "
            "published_defaults(model, instruct=True) or False."
        )
    return tuned is not None
