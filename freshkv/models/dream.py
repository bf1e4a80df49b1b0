"""Dream (arXiv:2508.15487): Qwen2's layers without causal mask; row i predicts token i + 1.

DiffuCoder (arXiv:2506.20639) and Dream-Coder are published in the same form.
"""

from __future__ import annotations

from typing import Any, cast

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig

from freshkv.models.configuration import (
    require_counts,
    require_divides,
    require_head_width,
    require_implemented,
    require_positive,
    take_rope_theta,
)
from freshkv.models.decoder import DENSE_PLAN, DecoderModel, DecoderShape

#: fields of official configurations that would change the network, and the values that this file implements
IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "use_sliding_window": (False, None),
}


class DreamConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The official fields of a Dream checkpoint; those that do not change the network are kept as they are.

    The defaults are those of Dream-v0-7B, but for the token ids, which have none.

    Raises CheckpointError when a number does not fit, or the architecture is one that is not implemented.
    """

    model_type = "Dream"
    base_model_tp_plan = DENSE_PLAN

    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_hidden_layers: int = 28
    num_attention_heads: int = 28
    num_key_value_heads: int | None = 4  #: None: as many as query heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 131072
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1000000.0
    tie_word_embeddings: bool = False
    mask_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    logits_shift: int = 1  #: 1: row i predicts token i + 1

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then check."""
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        self.rope_theta = take_rope_theta(kwargs, default=self.rope_theta)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.check()

    def check(self) -> None:
        """Raise CheckpointError unless freshkv implements exactly this network."""
        counts = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        require_counts(self, *counts, "num_attention_heads", "num_key_value_heads")
        require_positive(self, "rope_theta", "rms_norm_eps")
        require_head_width(self, "hidden_size", "num_attention_heads")
        require_divides(self, "num_key_value_heads", "num_attention_heads")
        require_implemented(self, {**IMPLEMENTED, "logits_shift": (1, 0)})


class DreamModel(DecoderModel):  # type: ignore[no-untyped-call]
    """Dream with its output head; a freshkv ``Network`` whose logits are shifted by one."""

    config_class = DreamConfig
    config: DreamConfig

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


AutoConfig.register(DreamConfig.model_type, DreamConfig, exist_ok=True)
AutoModel.register(DreamConfig, DreamModel, exist_ok=True)
AutoModelForMaskedLM.register(DreamConfig, DreamModel, exist_ok=True)
