"""Qwen2 and Qwen2.5 weights turned into a diffusion model (Tiny-A2D, Open-dLLM).

The weights are those of Transformers' Qwen2; attention looks both ways. Under ``qwen2``, Transformers' own name, logits
stay where next-token prediction put them: in the row before. Under ``a2d-qwen2``, the name of Tiny-A2D (the dllm
library), they were trained in place. Either can be told otherwise with ``logits_shift=``.
"""

from __future__ import annotations

from typing import cast

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig, Qwen2Config

from freshkv.models.decoder import DENSE_PLAN, DecoderModel, DecoderShape, DiffusionFields


class DiffusionQwen2Config(DiffusionFields, Qwen2Config):  # type: ignore[no-untyped-call]
    """The fields of Transformers' own, and those that make a diffusion model of it."""

    model_type = "qwen2"
    base_model_tp_plan = DENSE_PLAN


class A2DQwen2Config(DiffusionQwen2Config):  # type: ignore[no-untyped-call]
    """The same after training on masked tokens: logits in place."""

    model_type = "a2d-qwen2"

    logits_shift: int = 0


class DiffusionQwen2Model(DecoderModel):  # type: ignore[no-untyped-call]
    """Qwen2 with bidirectional attention; a freshkv ``Network``."""

    config_class = DiffusionQwen2Config

    @classmethod
    def shape_of(cls, config: PreTrainedConfig) -> DecoderShape:
        """Biases on queries, keys and values."""
        return DecoderShape(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=cast("int", config.num_key_value_heads),
            head_width=config.hidden_size // config.num_attention_heads,
            feed_forward_width=config.intermediate_size,
            eps=config.rms_norm_eps,
            qkv_bias=True,
        )


class A2DQwen2Model(DiffusionQwen2Model):  # type: ignore[no-untyped-call]
    """The same under the name of Tiny-A2D."""

    config_class = A2DQwen2Config


# not under Transformers' own name: there, AutoModel stays what it was
AutoConfig.register(A2DQwen2Config.model_type, A2DQwen2Config, exist_ok=True)
AutoModel.register(A2DQwen2Config, A2DQwen2Model, exist_ok=True)
AutoModelForMaskedLM.register(A2DQwen2Config, A2DQwen2Model, exist_ok=True)
