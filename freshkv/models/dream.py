"""Dream (arXiv:2508.15487): Qwen2's layers without causal mask; row i predicts token i + 1."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig

from freshkv.core.network import NetworkSpec
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.configuration import (
    end_token,
    mask_token,
    require_counts,
    require_divides,
    require_head_width,
    require_implemented,
    require_positive,
    take_rope_theta,
)
from freshkv.models.layers import Layer, RMSNorm, Rotary, gated, project_heads, split_heads

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
        require_implemented(self, IMPLEMENTED)


class DreamAttention(nn.Module):
    """The projections of attention; queries, keys and values have biases."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        width = config.hidden_size
        kv_width = width // config.num_attention_heads * cast("int", config.num_key_value_heads)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)
        self.o_proj = nn.Linear(width, width, bias=False)


class DreamMLP(nn.Module):
    """The projections of the gated feed-forward network."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)


class DreamDecoderLayer(nn.Module):
    """One layer, under the names of the official checkpoints."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.head_width = config.hidden_size // config.num_attention_heads
        self.self_attn = DreamAttention(config)
        self.mlp = DreamMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def project(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network.project``."""
        projections = (self.self_attn.q_proj, self.self_attn.k_proj, self.self_attn.v_proj)
        return project_heads(self.input_layernorm(hidden), projections, self.head_width, rotary)

    def project_values(self, hidden: Tensor) -> Tensor:
        """See ``Network.project_values``."""
        return split_heads(self.self_attn.v_proj(self.input_layernorm(hidden)), self.head_width)

    def attention_output(self, attended: Tensor) -> Tensor:
        """See ``Network.attention_output``."""
        return cast("Tensor", self.self_attn.o_proj(attended.flatten(1)))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        normed = self.post_attention_layernorm(hidden)
        return gated(normed, self.mlp.gate_proj, self.mlp.up_proj, self.mlp.down_proj)


class DreamBaseModel(nn.Module):
    """Embedding, layers and final norm, under the names of the official checkpoints."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DreamDecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class DreamModel(LlamaLikeModel):  # type: ignore[no-untyped-call]
    """Dream with its output head; a freshkv ``Network`` whose logits are shifted by one."""

    config_class = DreamConfig
    config: DreamConfig
    model: DreamBaseModel
    lm_head: nn.Linear
    _no_split_modules = ["DreamDecoderLayer"]  # noqa: RUF012 - Transformers' own declaration
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - as above

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config)
        self.rotary_embedding = Rotary(config.hidden_size // config.num_attention_heads, config.rope_theta)
        self.model = DreamBaseModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @cached_property
    def network_spec(self) -> NetworkSpec:
        """The numbers of this network; raises CheckpointError where the configuration lacks a mask token."""
        config = self.config
        return NetworkSpec(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=cast("int", config.num_key_value_heads),
            head_width=config.hidden_size // config.num_attention_heads,
            width=config.hidden_size,
            feed_forward_width=config.intermediate_size,
            vocabulary=config.vocab_size,
            mask_token_id=mask_token(config, config.vocab_size),
            eos_token_id=end_token(config, config.vocab_size),
            logits_shift=1,
        )

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding, weight [vocabulary, width]."""
        return self.model.embed_tokens

    @property
    def layers(self) -> Sequence[Layer]:
        """The transformer layers, first to last."""
        return cast("Sequence[Layer]", self.model.layers)

    @property
    def final_norm(self) -> nn.Module:
        """The norm before the output head."""
        return self.model.norm

    @property
    def head(self) -> nn.Linear:
        """The output head, weight [vocabulary, width]."""
        return self.lm_head


AutoConfig.register(DreamConfig.model_type, DreamConfig, exist_ok=True)
AutoModel.register(DreamConfig, DreamModel, exist_ok=True)
AutoModelForMaskedLM.register(DreamConfig, DreamModel, exist_ok=True)
