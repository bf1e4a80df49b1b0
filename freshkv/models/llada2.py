"""LLaDA2.0 (arXiv:2512.15745): a mixture of experts with grouped routing, block-causal; logits in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedConfig

from freshkv.core.network import NetworkSpec
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.configuration import (
    end_token,
    mask_token,
    require_counts,
    require_divides,
    require_implemented,
    require_positive,
    take_rope_theta,
)
from freshkv.models.decoder import DecoderMLP
from freshkv.models.experts import make_experts, mix
from freshkv.models.layers import Layer, RMSNorm, Rotary, rotate, split_heads

#: fields of official configurations that would change the network, and the values that this file implements
IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "score_function": ("sigmoid", None),
    "norm_topk_prob": (True, None),
    "norm_head": (False, None),
    "use_sliding_window": (False, None),
}


class LLaDA2MoeConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The official fields of an LLaDA2.0 checkpoint. The defaults are those of LLaDA2.0-mini, but for token ids.

    Raises CheckpointError when a number does not fit, or the architecture is one that is not implemented.
    """

    model_type = "llada2_moe"

    vocab_size: int = 157184
    hidden_size: int = 2048
    intermediate_size: int = 5120  #: of the dense layers
    moe_intermediate_size: int = 512  #: of an expert
    num_hidden_layers: int = 20
    first_k_dense_replace: int = 1  #: layers without experts, from the first
    num_attention_heads: int = 16
    num_key_value_heads: int = 4
    head_dim: int | None = 128  #: None: hidden_size / num_attention_heads
    num_experts: int = 256
    num_shared_experts: int | None = 1
    num_experts_per_tok: int = 8
    n_group: int = 8  #: groups of experts
    topk_group: int = 4  #: groups that a row chooses experts from
    routed_scaling_factor: float = 2.5
    partial_rotary_factor: float = 0.5  #: share of a head that is rotated
    use_qkv_bias: bool = False
    use_qk_norm: bool = True
    use_bias: bool = False  #: of the attention's output projection
    hidden_act: str = "silu"
    max_position_embeddings: int = 32768
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-6
    rope_theta: float = 600000.0
    tie_word_embeddings: bool = False
    mask_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None
    block_causal: int | None = 32  #: positions; official configurations do not name it

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then check."""
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        self.rope_theta = take_rope_theta(kwargs, default=self.rope_theta)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.check()

    def check(self) -> None:
        """Raise CheckpointError unless freshkv implements exactly this network."""
        counts = ("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers")
        require_counts(self, *counts, "num_attention_heads", "num_key_value_heads", "head_dim", "num_experts")
        require_counts(self, "num_experts_per_tok", "n_group", "topk_group")
        require_positive(self, "rope_theta", "rms_norm_eps", "partial_rotary_factor", "routed_scaling_factor")
        require_divides(self, "num_key_value_heads", "num_attention_heads")
        require_divides(self, "n_group", "num_experts")
        if self.block_causal is not None:
            require_counts(self, "block_causal")
        within = self.topk_group * (self.num_experts // self.n_group)
        choices = {
            "topk_group": tuple(range(1, self.n_group + 1)),
            "num_experts_per_tok": tuple(range(1, within + 1)),
        }
        require_implemented(self, {**IMPLEMENTED, **choices})

    @property
    def rotated_width(self) -> int:
        """Elements of a head that are rotated."""
        return int(cast("int", self.head_dim) * self.partial_rotary_factor)


class LLaDA2Attention(nn.Module):
    """One matrix for queries, keys and values; norms of each query and key head."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        head_width = cast("int", config.head_dim)
        self.heads, self.kv_heads, self.head_width = config.num_attention_heads, config.num_key_value_heads, head_width
        together = (self.heads + 2 * self.kv_heads) * head_width
        self.query_key_value = nn.Linear(config.hidden_size, together, bias=config.use_qkv_bias)
        self.dense = nn.Linear(self.heads * head_width, config.hidden_size, bias=config.use_bias)
        normed = config.use_qk_norm
        self.query_layernorm = RMSNorm(head_width, config.rms_norm_eps) if normed else nn.Identity()
        self.key_layernorm = RMSNorm(head_width, config.rms_norm_eps) if normed else nn.Identity()

    def split(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [rows, its heads, head_width], not yet normed or rotated."""
        together = split_heads(self.query_key_value(hidden), self.head_width)
        queries, keys, values = torch.split(together, [self.heads, self.kv_heads, self.kv_heads], dim=1)
        return queries, keys, values


class LLaDA2Gate(nn.Module):
    """The router: experts are chosen from the groups whose two best are best; a bias steers the choice alone."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        self.chosen_each, self.groups = config.num_experts_per_tok, config.n_group
        self.groups_each, self.factor = config.topk_group, config.routed_scaling_factor
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))
        nn.init.normal_(self.weight, std=config.initializer_range)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Experts, long [rows, k], and their weights, of ``hidden`` [rows, width]."""
        exact = torch.promote_types(hidden.dtype, torch.float32)
        scores = (hidden.to(exact) @ self.weight.to(exact).T).sigmoid()
        steered = scores + cast("Tensor", self.expert_bias).to(exact)
        by_group = torch.unflatten(steered, 1, (self.groups, -1))  # [rows, groups, experts of a group]
        best_two = by_group.topk(min(2, by_group.shape[2]), dim=2).values.sum(dim=2)
        groups = best_two.topk(self.groups_each, dim=1).indices
        open_groups = torch.zeros_like(best_two, dtype=torch.bool).scatter(1, groups, value=True)
        allowed = by_group.masked_fill(~open_groups[:, :, None], float("-inf")).flatten(1)
        chosen = allowed.topk(self.chosen_each, dim=1).indices
        weights = scores.gather(1, chosen)
        if self.chosen_each > 1:
            weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-20)
        return chosen, weights * self.factor


class LLaDA2Experts(nn.Module):
    """Router, experts, and the experts that every row goes through."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        width, inner, shared = config.hidden_size, config.moe_intermediate_size, config.num_shared_experts
        self.gate = LLaDA2Gate(config)
        self.experts = make_experts(config.num_experts, width, inner)
        self.shared_experts = DecoderMLP(width, inner * shared) if shared else None

    def forward(self, hidden: Tensor) -> Tensor:
        """[rows, width] to [rows, width]."""
        mixed = mix(hidden, self.experts, *self.gate(hidden))
        return mixed if self.shared_experts is None else mixed + cast("Tensor", self.shared_experts(hidden))


class LLaDA2Layer(nn.Module):
    """One layer, under the names of the official checkpoints; the first ones are dense."""

    def __init__(self, config: LLaDA2MoeConfig, index: int) -> None:
        super().__init__()
        self.attention = LLaDA2Attention(config)
        dense = index < config.first_k_dense_replace
        self.mlp = DecoderMLP(config.hidden_size, config.intermediate_size) if dense else LLaDA2Experts(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def project(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network.project``."""
        queries, keys, values = self.attention.split(self.input_layernorm(hidden))
        queries, keys = self.attention.query_layernorm(queries), self.attention.key_layernorm(keys)
        return rotate(queries, rotary), rotate(keys, rotary), values

    def project_values(self, hidden: Tensor) -> Tensor:
        """See ``Network.project_values``."""
        return self.attention.split(self.input_layernorm(hidden))[2]

    def attention_output(self, attended: Tensor) -> Tensor:
        """See ``Network.attention_output``."""
        return cast("Tensor", self.attention.dense(attended.flatten(1)))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        return cast("Tensor", self.mlp(self.post_attention_layernorm(hidden)))


class LLaDA2Base(nn.Module):
    """Embedding, layers and final norm, under the names of the official checkpoints."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(LLaDA2Layer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class LLaDA2MoeModelLM(LlamaLikeModel):  # type: ignore[no-untyped-call]
    """LLaDA2.0 with its output head; a freshkv ``Network`` whose rows see their own block and those before."""

    config_class = LLaDA2MoeConfig
    config: LLaDA2MoeConfig
    model: LLaDA2Base
    lm_head: nn.Linear
    _no_split_modules = ["LLaDA2Layer"]  # noqa: RUF012 - Transformers' own declaration
    _tied_weights_keys = {"lm_head.weight": "model.word_embeddings.weight"}  # noqa: RUF012 - as above

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__(config)
        self.rotary_embedding = Rotary(config.rotated_width, config.rope_theta)
        self.model = LLaDA2Base(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @cached_property
    def network_spec(self) -> NetworkSpec:
        """The numbers of this network; raises CheckpointError where the configuration lacks a mask token."""
        config = self.config
        experts = config.num_experts_per_tok + (config.num_shared_experts or 0)
        return NetworkSpec(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_width=cast("int", config.head_dim),
            width=config.hidden_size,
            feed_forward_width=experts * config.moe_intermediate_size,
            vocabulary=config.vocab_size,
            mask_token_id=mask_token(config, config.vocab_size),
            eos_token_id=end_token(config, config.vocab_size),
            block_causal=config.block_causal,
        )

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding, weight [vocabulary, width]."""
        return self.model.word_embeddings

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


AutoConfig.register(LLaDA2MoeConfig.model_type, LLaDA2MoeConfig, exist_ok=True)
AutoModel.register(LLaDA2MoeConfig, LLaDA2MoeModelLM, exist_ok=True)
AutoModelForMaskedLM.register(LLaDA2MoeConfig, LLaDA2MoeModelLM, exist_ok=True)
