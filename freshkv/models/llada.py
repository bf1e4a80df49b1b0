"""LLaDA (arXiv:2502.09992): Llama-like layers without causal mask, no biases, logits at their own position."""

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
from freshkv.models.tensor_parallel import EMBEDDING, HEAD, INPUTS, OUTPUTS

#: fields of official configurations that would change the network, and the values that this file implements
IMPLEMENTED: dict[str, tuple[Any, ...]] = {
    "block_type": ("llama",),
    "layer_norm_type": ("rms",),
    "activation_type": ("silu",),
    "rope": (True,),
    "alibi": (False, None),
    "block_group_size": (1, None),
    "layer_norm_with_affine": (True, None),
    "attention_layer_norm": (False, None),
    "input_emb_norm": (False, None),
    "scale_logits": (False, None),
    "clip_qkv": (None,),
}

#: how tensor parallel divides the modules
PLAN = {
    "model.transformer.wte": EMBEDDING,
    **{f"model.transformer.blocks.*.{name}_proj": OUTPUTS for name in ("q", "k", "v", "ff", "up")},
    **{f"model.transformer.blocks.*.{name}_out": INPUTS for name in ("attn", "ff")},
    "model.transformer.ff_out": HEAD,
}


class LLaDAConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The official fields of a LLaDA checkpoint; those that do not change the network are kept as they are.

    The defaults are those of LLaDA-8B, but for the feed-forward width (12288 there) and the token ids, which have none.

    Raises CheckpointError when a number does not fit, or the architecture is one that is not implemented.
    """

    model_type = "llada"
    base_model_tp_plan = PLAN
    attribute_map = {  # noqa: RUF012 - Transformers' own declaration
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "intermediate_size": "mlp_hidden_size",
        "max_position_embeddings": "max_sequence_length",
        "tie_word_embeddings": "weight_tying",
    }

    d_model: int = 4096
    n_layers: int = 32
    n_heads: int = 32
    n_kv_heads: int | None = None  #: None: as many as query heads
    mlp_ratio: float = 4
    mlp_hidden_size: int | None = None  #: None: mlp_ratio * d_model
    vocab_size: int = 126464
    embedding_size: int | None = None  #: rows of the embedding and of the head; None: vocab_size
    max_sequence_length: int = 4096
    rope_theta: float = 500000.0
    rms_norm_eps: float = 1e-5
    weight_tying: bool = False
    include_bias: bool = False
    include_qkv_bias: bool | None = False
    bias_for_layer_norm: bool | None = False  #: None: as include_bias
    multi_query_attention: bool | None = None
    init_std: float = 0.02
    mask_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    bos_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, then check."""
        if self.n_kv_heads is None:
            self.n_kv_heads = 1 if self.multi_query_attention else self.n_heads
        if self.mlp_hidden_size is None:
            self.mlp_hidden_size = int(self.mlp_ratio * self.d_model)
        if self.embedding_size is None:
            self.embedding_size = self.vocab_size
        self.rope_theta = take_rope_theta(kwargs, default=self.rope_theta)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self.check()

    def check(self) -> None:
        """Raise CheckpointError unless freshkv implements exactly this network."""
        counts = ("d_model", "n_layers", "n_heads", "n_kv_heads", "mlp_hidden_size", "vocab_size", "embedding_size")
        require_counts(self, *counts)
        require_positive(self, "rope_theta", "rms_norm_eps")
        require_head_width(self, "d_model", "n_heads")
        require_divides(self, "n_kv_heads", "n_heads")
        norm_bias = (False,) if self.include_bias else (False, None)
        require_implemented(self, {**IMPLEMENTED, "bias_for_layer_norm": norm_bias})


class LLaDABlock(nn.Module):
    """One layer, under the names of the official checkpoints (``ff_proj`` is the gate)."""

    SIDE_BY_SIDE = (("q_proj", "k_proj"), ("ff_proj", "up_proj"))

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        width, feed_forward_width = config.d_model, cast("int", config.mlp_hidden_size)
        self.head_width = width // config.n_heads
        kv_width = self.head_width * cast("int", config.n_kv_heads)
        bias, qkv_bias = config.include_bias, bool(config.include_bias or config.include_qkv_bias)
        self.attn_norm = RMSNorm(width, config.rms_norm_eps)
        self.q_proj = nn.Linear(width, width, bias=qkv_bias)
        self.k_proj = nn.Linear(width, kv_width, bias=qkv_bias)
        self.v_proj = nn.Linear(width, kv_width, bias=qkv_bias)
        self.attn_out = nn.Linear(width, width, bias=bias)
        self.ff_norm = RMSNorm(width, config.rms_norm_eps)
        self.ff_proj = nn.Linear(width, feed_forward_width, bias=bias)
        self.up_proj = nn.Linear(width, feed_forward_width, bias=bias)
        self.ff_out = nn.Linear(feed_forward_width, width, bias=bias)

    def project(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network.project``."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        return project_heads(self.attn_norm(hidden), projections, self.head_width, rotary)

    def project_values(self, hidden: Tensor) -> Tensor:
        """See ``Network.project_values``."""
        return split_heads(self.v_proj(self.attn_norm(hidden)), self.head_width)

    def attention_output(self, attended: Tensor) -> Tensor:
        """See ``Network.attention_output``."""
        return cast("Tensor", self.attn_out(attended.flatten(1)))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        return gated(self.ff_norm(hidden), self.ff_proj, self.up_proj, self.ff_out)


class LLaDATransformer(nn.Module):
    """Embedding, layers, final norm and head, under the names of the official checkpoints."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        vocabulary = cast("int", config.embedding_size)
        self.wte = nn.Embedding(vocabulary, config.d_model)
        self.blocks = nn.ModuleList(LLaDABlock(config) for _ in range(config.n_layers))
        self.ln_f = RMSNorm(config.d_model, config.rms_norm_eps)
        # a tied head is the embedding's weight alone
        self.ff_out = nn.Linear(config.d_model, vocabulary, bias=config.include_bias and not config.weight_tying)


class LLaDAModel(nn.Module):
    """Only a name: the tensors of official checkpoints start with ``model.transformer``."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.transformer = LLaDATransformer(config)


class LLaDAModelLM(LlamaLikeModel):  # type: ignore[no-untyped-call]
    """LLaDA with its output head; a freshkv ``Network``."""

    config_class = LLaDAConfig
    config: LLaDAConfig
    model: LLaDAModel
    _no_split_modules = ["LLaDABlock"]  # noqa: RUF012 - Transformers' own declaration
    _tied_weights_keys = {  # noqa: RUF012 - Transformers' own declaration
        "model.transformer.ff_out.weight": "model.transformer.wte.weight"
    }

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        self.rotary_embedding = Rotary(config.d_model // config.n_heads, config.rope_theta)
        self.model = LLaDAModel(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @cached_property
    def network_spec(self) -> NetworkSpec:
        """The numbers of this network; raises CheckpointError where the configuration lacks a mask token."""
        config = self.config
        vocabulary = cast("int", config.embedding_size)
        return NetworkSpec(
            layers=config.n_layers,
            heads=config.n_heads,
            kv_heads=cast("int", config.n_kv_heads),
            head_width=config.d_model // config.n_heads,
            width=config.d_model,
            feed_forward_width=cast("int", config.mlp_hidden_size),
            vocabulary=vocabulary,
            mask_token_id=mask_token(config, vocabulary),
            eos_token_id=end_token(config, vocabulary),
        )

    @property
    def embedding(self) -> nn.Embedding:
        """The token embedding, weight [vocabulary, width]."""
        return self.model.transformer.wte

    @property
    def layers(self) -> Sequence[Layer]:
        """The transformer layers, first to last."""
        return cast("Sequence[Layer]", self.model.transformer.blocks)

    @property
    def final_norm(self) -> nn.Module:
        """The norm before the output head."""
        return self.model.transformer.ln_f

    @property
    def head(self) -> nn.Linear:
        """The output head, weight [vocabulary, width]."""
        return self.model.transformer.ff_out


AutoConfig.register(LLaDAConfig.model_type, LLaDAConfig, exist_ok=True)
AutoModel.register(LLaDAConfig, LLaDAModelLM, exist_ok=True)
AutoModelForMaskedLM.register(LLaDAConfig, LLaDAModelLM, exist_ok=True)
