"""Qwen3 weights turned into a diffusion model (Tiny-A2D).

The weights are those of Transformers' Qwen3; attention looks both ways. Under ``qwen3``, Transformers' own name, logits
stay where next-token prediction put them: in the row before. Under ``a2d-qwen3``, the name of Tiny-A2D (the dllm
library), they were trained in place. Either can be told otherwise with ``logits_shift=``.
"""

from __future__ import annotations

from typing import cast

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig, Qwen3Config

from freshkv.models.decoder import DENSE_PLAN, DecoderModel, DecoderShape, DiffusionFields


class DiffusionQwen3Config(DiffusionFields, Qwen3Config):  # type: ignore[no-untyped-call]
    """The fields of Transformers' own, and those that make a diffusion model of it."""

    model_type = "qwen3"
    base_model_tp_plan = DENSE_PLAN


class A2DQwen3Config(DiffusionQwen3Config):  # type: ignore[no-untyped-call]
    """The same after training on masked tokens: logits in place."""

    model_type = "a2d-qwen3"

    logits_shift: int = 0


class DiffusionQwen3Model(DecoderModel):  # type: ignore[no-untyped-call]
    """Qwen3 with bidirectional attention; a freshkv ``Network``."""

    config_class = DiffusionQwen3Config

    @classmethod
    def shape_of(cls, config: PreTrainedConfig) -> DecoderShape:
        """A norm of each query and key head."""
        return DecoderShape(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=cast("int", config.num_key_value_heads),
            head_width=config.head_dim,
            feed_forward_width=config.intermediate_size,
            eps=config.rms_norm_eps,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            head_norms=True,
        )


class A2DQwen3Model(DiffusionQwen3Model):  # type: ignore[no-untyped-call]
    """The same under the name of Tiny-A2D."""

    config_class = A2DQwen3Config


# not under Transformers' own name: there, AutoModel stays what it was
AutoConfig.register(A2DQwen3Config.model_type, A2DQwen3Config, exist_ok=True)
AutoModel.register(A2DQwen3Config, A2DQwen3Model, exist_ok=True)
AutoModelForMaskedLM.register(A2DQwen3Config, A2DQwen3Model, exist_ok=True)
