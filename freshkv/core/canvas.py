"""The fixed facts of a run: where the response lies and how it divides into blocks. Checks the arguments."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.errors import InputError
from freshkv.core.network import NetworkSpec


@frozen(kw_only=True, eq=False)
class Canvas:
    """A left-padded prompt and ``gen_length`` response positions, decoded in blocks of ``block_length``."""

    prompt: Tensor  #: long [batch, prompt_length]
    is_valid: Tensor  #: bool [batch, seq]; False at left padding
    gen_length: int  #: positions
    block_length: int  #: positions; divides gen_length, or the network's block where blocks are aligned to it
    mask_token_id: int
    vocabulary: int
    eos_token_id: int | None = None  #: a sequence ends at its first EOS; None: never before the last position
    #: blocks are counted from the first token, as those of a block-causal network, so that the first of the response
    #: holds what its prompt left over; not aligned: from the first position of the response
    aligned: bool = False

    @classmethod
    def create(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        gen_length: int,
        block_length: int | None,
        spec: NetworkSpec,
        device: torch.device,
        eos_token_id: int | None = None,
    ) -> Canvas:
        """Check the arguments of ``generate`` and lay out the canvas. Raises InputError."""
        _check_lengths(gen_length, block_length, spec.block_causal)
        _check_tokens(input_ids, spec)
        valid = _prompt_mask(input_ids, attention_mask).to(device)
        response = torch.ones((input_ids.shape[0], gen_length), dtype=torch.bool, device=device)
        return cls(
            prompt=input_ids.to(device=device, dtype=torch.long).clone(),
            is_valid=torch.cat((valid, response), dim=SEQ),
            gen_length=gen_length,
            block_length=block_length or spec.block_causal or gen_length,
            aligned=spec.block_causal is not None,
            mask_token_id=spec.mask_token_id,
            vocabulary=spec.vocabulary,
            eos_token_id=eos_token_id,
        )

    @property
    def prompt_length(self) -> int:
        """Columns left of the response, padding included."""
        return self.prompt.shape[SEQ]

    @property
    def seq(self) -> int:
        """Columns of the canvas."""
        return self.prompt_length + self.gen_length

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.prompt.shape[0]

    @property
    def blocks(self) -> int:
        """Blocks of the response."""
        return self.gen_length // self.block_length

    def tokens(self) -> Tensor:
        """long [batch, seq]: the prompt, then masks."""
        masks = self.prompt.new_full((self.batch, self.gen_length), self.mask_token_id)
        return torch.cat((self.prompt, masks), dim=SEQ)

    def block_index(self) -> Tensor:
        """long [batch, seq]: the block of each position, -1 in the prompt."""
        position = torch.arange(self.seq, device=self.prompt.device).expand(self.batch, -1)
        response = position >= self.prompt_length
        counted = self.is_valid.long().cumsum(dim=SEQ) - 1 if self.aligned else position - self.prompt_length
        block = counted // self.block_length
        return torch.where(response, block - block[:, self.prompt_length, None], -1)


def _check_lengths(gen_length: int, block_length: int | None, block_causal: int | None) -> None:
    for name, value in (("gen_length", gen_length), ("block_length", block_length)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} is {value!r}; expected a whole number of at least 1.")
    if block_causal is not None:
        if block_length is not None and block_causal % block_length != 0:
            raise InputError(
                f"block_length is {block_length}, but the network is block-causal in blocks of {block_causal}: a "
                f"position sees nothing behind its own block. Give {block_causal}, a divisor of it, or None."
            )
        return
    if block_length is not None and gen_length % block_length != 0:
        divisors = [n for n in range(1, gen_length + 1) if gen_length % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - block_length))
        raise InputError(
            f"block_length {block_length} does not divide gen_length {gen_length}. The nearest that does is {nearest}; "
            "None decodes the response as one block."
        )


def _check_tokens(input_ids: Tensor, spec: NetworkSpec) -> None:
    if not isinstance(input_ids, Tensor):
        raise InputError(f"input_ids is a {type(input_ids).__name__}; expected a long tensor [batch, prompt].")
    if input_ids.dtype not in (torch.int64, torch.int32):
        raise InputError(f"input_ids has dtype {_name(input_ids.dtype)}; expected int64 (token ids).")
    if input_ids.ndim != 2:
        hint = " One prompt is a batch of one: input_ids[None]." if input_ids.ndim == 1 else ""
        raise InputError(f"input_ids has shape {tuple(input_ids.shape)}; expected [batch, prompt].{hint}")
    if 0 in input_ids.shape:
        raise InputError(f"input_ids has shape {tuple(input_ids.shape)}; expected at least one prompt of one token.")
    low, high = int(input_ids.min()), int(input_ids.max())
    if low < 0 or high >= spec.vocabulary:
        worst = low if low < 0 else high
        raise InputError(
            f"input_ids holds token id {worst}; the model's vocabulary is 0 to {spec.vocabulary - 1}. "
            "Was the prompt encoded with another model's tokenizer?"
        )


def _prompt_mask(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool)
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != input_ids.shape:
        found = tuple(attention_mask.shape) if isinstance(attention_mask, Tensor) else type(attention_mask).__name__
        raise InputError(f"attention_mask is {found}; expected the shape of input_ids, {tuple(input_ids.shape)}.")
    if not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
        raise InputError("attention_mask holds values other than 0 and 1 (or False and True).")
    mask = attention_mask.bool()
    # left padding: once a token is valid, all after it are
    broken = (mask[:, :-1] & ~mask[:, 1:]).any(dim=SEQ).nonzero()[:, 0].tolist()
    if broken:
        raise InputError(
            f"attention_mask has padding to the right of a token in sequences {broken}; prompts must be padded on the "
            "left, because the response follows the prompt (tokenizer.padding_side = 'left')."
        )
    empty = (~mask[:, -1]).nonzero()[:, 0].tolist()
    if empty:
        raise InputError(f"attention_mask leaves no token at all in sequences {empty}.")
    return mask


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def rotary_positions(is_valid: Tensor) -> Tensor:
    """Positions for rotary embedding, long [batch, seq]: the first valid token is 0, padding too."""
    return (is_valid.long().cumsum(dim=1) - 1).clamp(min=0)
