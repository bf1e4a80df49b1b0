"""SDAR (arXiv:2510.06303): Qwen3's layers, block-causal; logits in place."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from freshkv.models.qwen3 import DiffusionQwen3Config, DiffusionQwen3Model


class SDARConfig(DiffusionQwen3Config):  # type: ignore[no-untyped-call]
    """The official fields of an SDAR checkpoint; ``block_size`` is the attention block, 4 where it is not named."""

    model_type = "sdar"

    block_size: int = 4  #: positions
    logits_shift: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        """The block of ``block_causal``, if that is given, else of ``block_size``."""
        if self.block_causal is None:
            self.block_causal = self.block_size
        super().__post_init__(**kwargs)


class SDARForCausalLM(DiffusionQwen3Model):  # type: ignore[no-untyped-call]
    """SDAR with its output head; a freshkv ``Network`` whose rows see their own block and those before."""

    config_class = SDARConfig


AutoConfig.register(SDARConfig.model_type, SDARConfig, exist_ok=True)
AutoModel.register(SDARConfig, SDARForCausalLM, exist_ok=True)
AutoModelForMaskedLM.register(SDARConfig, SDARForCausalLM, exist_ok=True)
