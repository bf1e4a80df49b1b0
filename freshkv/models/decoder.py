"""Networks under the names of Transformers' Llama, Qwen2 and Qwen3: what the families with those weights share.

A family says in a ``DecoderShape`` where its layers differ: biases, norms of each head, the width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

from attrs import frozen
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from freshkv.core.errors import CheckpointError
from freshkv.core.network import NetworkSpec
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.configuration import end_token, mask_token, require_implemented
from freshkv.models.layers import Layer, RMSNorm, Rotary, gated, project_heads, split_heads
from freshkv.models.tensor_parallel import EMBEDDING, HEAD, INPUTS, OUTPUTS

#: ways of scaling rotary embedding that do not depend on the length of the text
SCALINGS = ("linear", "llama3", "yarn")

#: fields that would change the network, and the values that this file implements
IMPLEMENTED: dict[str, tuple[Any, ...]] = {"hidden_act": ("silu",)}


#: how tensor parallel divides the ends of the network, and the projections of attention
ENDS_PLAN = {"model.embed_tokens": EMBEDDING, "lm_head": HEAD}
ATTENTION_PLAN = {
    **{f"model.layers.*.self_attn.{name}_proj": OUTPUTS for name in ("q", "k", "v")},
    "model.layers.*.self_attn.o_proj": INPUTS,
}


def feed_forward_plan(name: str) -> dict[str, str]:
    """How it divides a gated network, ``name`` within a layer."""
    module = f"model.layers.*.{name}"
    return {f"{module}.gate_proj": OUTPUTS, f"{module}.up_proj": OUTPUTS, f"{module}.down_proj": INPUTS}


#: of a network whose layers all have one gated network, ``mlp``
DENSE_PLAN = {**ENDS_PLAN, **ATTENTION_PLAN, **feed_forward_plan("mlp")}


@frozen(kw_only=True)
class DecoderShape:
    """Numbers and variants of a layer."""

    width: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward_width: int
    eps: float  #: of the norms
    qkv_bias: bool = False
    output_bias: bool = False  #: of the attention's output projection
    feed_forward_bias: bool = False
    head_norms: bool = False  #: a norm of each query and key head, before rotary embedding


class DecoderAttention(nn.Module):
    """The projections of attention."""

    SIDE_BY_SIDE = (("q_proj", "k_proj"),)

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        heads_width, kv_width = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        self.q_proj = nn.Linear(shape.width, heads_width, bias=shape.qkv_bias)
        self.k_proj = nn.Linear(shape.width, kv_width, bias=shape.qkv_bias)
        self.v_proj = nn.Linear(shape.width, kv_width, bias=shape.qkv_bias)
        self.o_proj = nn.Linear(heads_width, shape.width, bias=shape.output_bias)
        if shape.head_norms:
            self.q_norm = RMSNorm(shape.head_width, shape.eps)
            self.k_norm = RMSNorm(shape.head_width, shape.eps)


class DecoderMLP(nn.Module):
    """The gated feed-forward network."""

    SIDE_BY_SIDE = (("gate_proj", "up_proj"),)

    def __init__(self, width: int, inner: int, *, bias: bool = False) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[rows, width] to [rows, width]."""
        return gated(hidden, self.gate_proj, self.up_proj, self.down_proj)


class DecoderLayer(nn.Module):
    """One layer; ``feed_forward`` stands in for the gated network, under the name ``mlp``."""

    def __init__(self, shape: DecoderShape, feed_forward: nn.Module | None = None) -> None:
        super().__init__()
        self.head_width = shape.head_width
        self.self_attn = DecoderAttention(shape)
        dense = partial(DecoderMLP, shape.width, shape.feed_forward_width, bias=shape.feed_forward_bias)
        self.mlp = dense() if feed_forward is None else feed_forward
        self.input_layernorm = RMSNorm(shape.width, shape.eps)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.eps)

    def project(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network.project``."""
        attention = self.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        norms = (attention.q_norm, attention.k_norm) if hasattr(attention, "q_norm") else None
        return project_heads(self.input_layernorm(hidden), projections, self.head_width, rotary, norms)

    def project_values(self, hidden: Tensor) -> Tensor:
        """See ``Network.project_values``."""
        return split_heads(self.self_attn.v_proj(self.input_layernorm(hidden)), self.head_width)

    def attention_output(self, attended: Tensor) -> Tensor:
        """See ``Network.attention_output``."""
        return cast("Tensor", self.self_attn.o_proj(attended.flatten(1)))

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        return cast("Tensor", self.mlp(self.post_attention_layernorm(hidden)))


class DecoderBase(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, vocabulary: int, width: int, eps: float, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(width, eps)


class DecoderModel(LlamaLikeModel):  # type: ignore[no-untyped-call]
    """Layers of a ``DecoderShape`` with an output head; ``config`` has the field names of Transformers.

    ``config`` may say besides: ``logits_shift`` (where logits are read) and ``block_causal`` (the attention pattern).
    """

    model: DecoderBase
    lm_head: nn.Linear
    _no_split_modules = ["DecoderLayer"]  # noqa: RUF012 - Transformers' own declaration
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012 - as above

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        shape = self.shape_of(config)
        self.rotary_embedding = rotary_of(config, shape.head_width)
        layers = [self.make_layer(config, shape, index) for index in range(config.num_hidden_layers)]
        self.model = DecoderBase(config.vocab_size, shape.width, shape.eps, layers)
        self.lm_head = nn.Linear(shape.width, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    @classmethod
    def shape_of(cls, config: PreTrainedConfig) -> DecoderShape:
        """Numbers and variants of the layers that ``config`` describes; CheckpointError for what is not implemented."""
        raise NotImplementedError(f"{cls.__name__} does not say what its layers are like.")

    def make_layer(self, config: PreTrainedConfig, shape: DecoderShape, index: int) -> nn.Module:
        """Layer ``index``, from 0."""
        return DecoderLayer(shape)

    @cached_property
    def network_spec(self) -> NetworkSpec:
        """The numbers of this network; raises CheckpointError where the configuration lacks a mask token."""
        config, shape = self.config, self.shape_of(self.config)
        return NetworkSpec(
            layers=config.num_hidden_layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_width=shape.head_width,
            width=shape.width,
            feed_forward_width=self.feed_forward_width,
            vocabulary=config.vocab_size,
            mask_token_id=mask_token(config, config.vocab_size),
            eos_token_id=end_token(config, config.vocab_size),
            logits_shift=getattr(config, "logits_shift", 0),
            block_causal=getattr(config, "block_causal", None),
        )

    @property
    def feed_forward_width(self) -> int:
        """Inner elements of the feed-forward network that one row goes through."""
        return self.shape_of(self.config).feed_forward_width

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


def rotary_of(config: PreTrainedConfig, head_width: int) -> Rotary:
    """Rotary embedding as ``config`` describes it, scaled or not; CheckpointError for what depends on the length."""
    rope = dict(getattr(config, "rope_parameters", None) or {})
    kind = rope.get("rope_type", "default")
    theta = float(rope.get("rope_theta", getattr(config, "rope_theta", 10000.0)))
    if kind == "default":
        return Rotary(head_width, theta)
    if kind not in SCALINGS:
        raise CheckpointError(
            f"config: rotary embedding of type {kind!r} is not implemented; expected default, {', '.join(SCALINGS)}."
        )
    return Rotary(head_width, theta, partial(ROPE_INIT_FUNCTIONS[kind], config))


@dataclass(kw_only=True)
class DiffusionFields:
    """What makes a diffusion model of a configuration of Transformers: the first base of one, before that class."""

    mask_token_id: int | None = None
    logits_shift: int = 1  #: 1: row i predicts token i + 1
    block_causal: int | None = None  #: positions of a block that does not see later ones; None: all see all

    def __post_init__(self, **kwargs: Any) -> None:
        """Check what freshkv does not implement."""
        super().__post_init__(**kwargs)  # type: ignore[misc] # of Transformers' class, which comes next
        check_decoder(cast("PreTrainedConfig", self))


def check_decoder(config: PreTrainedConfig) -> None:
    """Raise CheckpointError for a configuration of Transformers that this file does not implement."""
    require_implemented(config, IMPLEMENTED)
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise CheckpointError("config: layer_types has sliding_attention, and freshkv implements full_attention here.")
    shift, block = getattr(config, "logits_shift", 0), getattr(config, "block_causal", None)
    if shift not in (0, 1):
        raise CheckpointError(f"config: logits_shift is {shift!r}; expected 0 (own row) or 1 (the row before).")
    if block is not None and (not isinstance(block, int) or isinstance(block, bool) or block < 1):
        raise CheckpointError(f"config: block_causal is {block!r}; expected a number of positions, or None.")
