"""Llama 2 and 3 weights turned into a diffusion model (Tiny-A2D).

The weights are those of Transformers' Llama; attention looks both ways. Under ``llama``, Transformers' own name, logits
stay where next-token prediction put them: in the row before. Under ``a2d-llama``, the name of Tiny-A2D (the dllm
library), they were trained in place. Either can be told otherwise with ``logits_shift=``.
"""

from __future__ import annotations

from typing import cast

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, LlamaConfig, PreTrainedConfig

from freshkv.models.decoder import DENSE_PLAN, DecoderModel, DecoderShape, DiffusionFields


class DiffusionLlamaConfig(DiffusionFields, LlamaConfig):  # type: ignore[no-untyped-call]
    """The fields of Transformers' own, and those that make a diffusion model of it."""

    model_type = "llama"
    base_model_tp_plan = DENSE_PLAN


class A2DLlamaConfig(DiffusionLlamaConfig):  # type: ignore[no-untyped-call]
    """The same after training on masked tokens: logits in place."""

    model_type = "a2d-llama"

    logits_shift: int = 0


class DiffusionLlamaModel(DecoderModel):  # type: ignore[no-untyped-call]
    """Llama with bidirectional attention; a freshkv ``Network``."""

    config_class = DiffusionLlamaConfig

    @classmethod
    def shape_of(cls, config: PreTrainedConfig) -> DecoderShape:
        """Biases where the configuration asks for them."""
        return DecoderShape(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=cast("int", config.num_key_value_heads),
            head_width=cast("int", config.head_dim),
            feed_forward_width=config.intermediate_size,
            eps=config.rms_norm_eps,
            qkv_bias=config.attention_bias,
            output_bias=config.attention_bias,
            feed_forward_bias=config.mlp_bias,
        )


class A2DLlamaModel(DiffusionLlamaModel):  # type: ignore[no-untyped-call]
    """The same under the name of Tiny-A2D."""

    config_class = A2DLlamaConfig


# not under Transformers' own name: there, AutoModel stays what it was
AutoConfig.register(A2DLlamaConfig.model_type, A2DLlamaConfig, exist_ok=True)
AutoModel.register(A2DLlamaConfig, A2DLlamaModel, exist_ok=True)
AutoModelForMaskedLM.register(A2DLlamaConfig, A2DLlamaModel, exist_ok=True)
