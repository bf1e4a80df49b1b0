"""Fast-dLLM v2 (arXiv:2509.26328): Qwen2.5's layers, block-causal; row i predicts token i + 1."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from freshkv.models.qwen2 import DiffusionQwen2Config, DiffusionQwen2Model


class FastDLLMConfig(DiffusionQwen2Config):  # type: ignore[no-untyped-call]
    """The official fields of a Fast-dLLM v2 checkpoint; ``bd_size`` is the attention block."""

    model_type = "Fast_dLLM_Qwen"

    bd_size: int = 32  #: positions

    def __post_init__(self, **kwargs: Any) -> None:
        """The block of ``block_causal``, if that is given, else of ``bd_size``."""
        if self.block_causal is None:
            self.block_causal = self.bd_size
        super().__post_init__(**kwargs)


class FastDLLMForCausalLM(DiffusionQwen2Model):  # type: ignore[no-untyped-call]
    """Fast-dLLM v2 with its output head; a freshkv ``Network`` whose rows see their own block and those before.

    The first position of a block is read from the last row of the block before, which does not see it: as published.
    """

    config_class = FastDLLMConfig


AutoConfig.register(FastDLLMConfig.model_type, FastDLLMConfig, exist_ok=True)
AutoModel.register(FastDLLMConfig, FastDLLMForCausalLM, exist_ok=True)
AutoModelForMaskedLM.register(FastDLLMConfig, FastDLLMForCausalLM, exist_ok=True)
