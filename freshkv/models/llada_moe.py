"""LLaDA-MoE (arXiv:2509.24389): LLaDA with a mixture of experts in every layer and a norm of each query and key head.

Its checkpoints call themselves ``llada``, as the dense ones do; their ``architectures`` tell them apart.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig

from freshkv.models.configuration import (
    require_counts,
    require_divides,
    require_head_width,
    require_implemented,
    require_positive,
    take_rope_theta,
)
from freshkv.models.decoder import (
    ATTENTION_PLAN,
    ENDS_PLAN,
    DecoderLayer,
    DecoderMLP,
    DecoderModel,
    DecoderShape,
    feed_forward_plan,
)
from freshkv.models.experts import make_experts, mix

#: fields of official configurations that would change the network, and the values that this file implements
IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "clip_qkv": (None,),
    "attention_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "moe_router_score_function": ("softmax", None),
    "moe_router_enable_expert_bias": (False, None),
    "norm_topk_prob": (False, None),
    "routed_scaling_factor": (1, None),
}

#: how tensor parallel divides the modules: all processes hold a part of every expert
PLAN = {**ENDS_PLAN, **ATTENTION_PLAN, **feed_forward_plan("mlp.experts.*")}


class LLaDAMoEConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The official fields of an LLaDA-MoE checkpoint. The defaults are those of LLaDA-MoE-7B-A1B, but for token ids.

    Raises CheckpointError when a number does not fit, or the architecture is one that is not implemented.
    """

    model_type = "lladamoe"
    base_model_tp_plan = PLAN

    vocab_size: int = 157184
    hidden_size: int = 2048
    expert_intermediate_size: int = 1024
    dense_intermediate_size: int | None = None  #: of layers without experts
    shared_expert_intermediate_size: int | None = (
        None  #: of the expert that every row goes through; None: there is none
    )
    num_hidden_layers: int = 16
    num_attention_heads: int = 16
    num_key_value_heads: int | None = None  #: None: as many as query heads
    num_experts: int = 64
    num_experts_per_tok: int = 8
    moe_layer_freq: list[int] | None = None  #: for each layer, 1: experts, 0: a dense network; None: all 1
    qk_layernorm: bool | None = True
    hidden_act: str = "silu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    rope_theta: float = 50000.0
    tie_word_embeddings: bool = False
    mask_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then check."""
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if not self.moe_layer_freq:
            self.moe_layer_freq = [1] * self.num_hidden_layers
        self.rope_theta = take_rope_theta(kwargs, default=self.rope_theta)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.check()
        self.base_model_tp_plan = self._plan()  # type: ignore[misc]  # not every checkpoint has all kinds of layers

    def _plan(self) -> dict[str, str]:
        dense = feed_forward_plan("mlp") if 0 in cast("list[int]", self.moe_layer_freq) else {}
        shared = {} if self.shared_expert_intermediate_size is None else feed_forward_plan("shared_expert")
        experts = PLAN if 1 in cast("list[int]", self.moe_layer_freq) else {**ENDS_PLAN, **ATTENTION_PLAN}
        return {**experts, **dense, **shared}

    def check(self) -> None:
        """Raise CheckpointError unless freshkv implements exactly this network."""
        counts = ("vocab_size", "hidden_size", "expert_intermediate_size", "num_hidden_layers", "num_experts")
        require_counts(self, *counts, "num_experts_per_tok", "num_attention_heads", "num_key_value_heads")
        if 0 in cast("list[int]", self.moe_layer_freq):
            require_counts(self, "dense_intermediate_size")
        if self.shared_expert_intermediate_size is not None:
            require_counts(self, "shared_expert_intermediate_size")
        require_positive(self, "rope_theta", "rms_norm_eps")
        require_head_width(self, "hidden_size", "num_attention_heads")
        require_divides(self, "num_key_value_heads", "num_attention_heads")
        require_implemented(self, {**IMPLEMENTED, "num_experts_per_tok": tuple(range(1, self.num_experts + 1))})


class LLaDAMoEBlock(nn.Module):
    """Router and experts. Probabilities are those of a softmax over all experts, not made to sum to one again."""

    def __init__(self, config: LLaDAMoEConfig) -> None:
        super().__init__()
        self.chosen_each = config.num_experts_per_tok
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = make_experts(config.num_experts, config.hidden_size, config.expert_intermediate_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """[rows, width] to [rows, width]."""
        scores = self.gate(hidden)
        probabilities = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
        weights, chosen = probabilities.topk(self.chosen_each, dim=-1)
        return mix(hidden, self.experts, chosen, weights)


class LLaDAMoELayer(DecoderLayer):
    """A layer with experts, and perhaps one that every row goes through."""

    def __init__(self, config: LLaDAMoEConfig, shape: DecoderShape) -> None:
        super().__init__(shape, LLaDAMoEBlock(config))
        inner = config.shared_expert_intermediate_size
        self.shared_expert = None if inner is None else DecoderMLP(config.hidden_size, inner)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        normed = self.post_attention_layernorm(hidden)
        mixed = cast("Tensor", self.mlp(normed))
        return mixed if self.shared_expert is None else mixed + cast("Tensor", self.shared_expert(normed))


class LLaDAMoEModelLM(DecoderModel):  # type: ignore[no-untyped-call]
    """LLaDA-MoE with its output head; a freshkv ``Network``."""

    config_class = LLaDAMoEConfig
    config: LLaDAMoEConfig
    _no_split_modules = ["LLaDAMoELayer", "DecoderLayer"]  # noqa: RUF012 - Transformers' own declaration

    @classmethod
    def shape_of(cls, config: PreTrainedConfig) -> DecoderShape:
        """``feed_forward_width`` is that of the dense layers."""
        return DecoderShape(
            width=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=cast("int", config.num_key_value_heads),
            head_width=config.hidden_size // config.num_attention_heads,
            feed_forward_width=config.dense_intermediate_size or config.expert_intermediate_size,
            eps=config.rms_norm_eps,
            head_norms=bool(config.qk_layernorm),
        )

    def make_layer(self, config: PreTrainedConfig, shape: DecoderShape, index: int) -> nn.Module:
        """With experts, or dense, as ``moe_layer_freq`` says."""
        mine = cast("LLaDAMoEConfig", config)
        return LLaDAMoELayer(mine, shape) if cast("list[int]", mine.moe_layer_freq)[index] else DecoderLayer(shape)

    @property
    def feed_forward_width(self) -> int:
        """What one row goes through: its experts and the shared one."""
        config = self.config
        return config.num_experts_per_tok * config.expert_intermediate_size + (
            config.shared_expert_intermediate_size or 0
        )


AutoConfig.register(LLaDAMoEConfig.model_type, LLaDAMoEConfig, exist_ok=True)
AutoModel.register(LLaDAMoEConfig, LLaDAMoEModelLM, exist_ok=True)
AutoModelForMaskedLM.register(LLaDAMoEConfig, LLaDAMoEModelLM, exist_ok=True)
