"""Tiny random networks of every built-in family, built once for each shape."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from attrs import frozen
from torch import nn

from freshkv.models import DreamConfig, DreamModel, LLaDAConfig, LLaDAModelLM
from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.llada2 import LLaDA2MoeConfig, LLaDA2MoeModelLM
from freshkv.models.llada_moe import LLaDAMoEConfig, LLaDAMoEModelLM
from freshkv.models.modernbert import DiffusionModernBert, DiffusionModernBertConfig
from freshkv.models.qwen3 import DiffusionQwen3Config, DiffusionQwen3Model

Family = Literal["llada", "dream", "qwen3", "llada-moe", "llada2", "modernbert"]
FAMILIES: tuple[Family, ...] = ("llada", "dream")
#: variants of the protocol besides: norms of heads and blocks, experts, grouped experts with partial rotation, windows
MORE_FAMILIES: tuple[Family, ...] = ("qwen3", "llada-moe", "llada2", "modernbert")

# wide enough that rows differ clearly, small enough that no confidence is rounded to 1, where ties begin
_WEIGHT_SCALE = 0.3
_ROUTER_SCALE = 3


@frozen(kw_only=True)
class NetworkShape:
    """What a tiny network is built from; equal shapes give the same network."""

    family: Family = "llada"
    layers: int = 2
    heads: int = 2
    kv_heads: int = 2  #: divides ``heads``
    head_width: int = 8  #: even
    vocabulary: int = 33
    mask_token_id: int = 32
    double: bool = True  #: float64 instead of float32: choices then do not hang on the order of additions
    seed: int = 0  #: of the weights
    shift: int = 0  #: of the logits; qwen3 alone, the others have their own
    block_causal: int | None = None  #: positions of an attention block; qwen3 and llada2
    window: int = 2  #: positions that a local layer sees to either side; modernbert, whose first layer is global

    @property
    def eos_token_id(self) -> int:
        """The token after the mask token, round the end of the vocabulary."""
        return (self.mask_token_id + 1) % self.vocabulary


@lru_cache(maxsize=512)
def tiny_network(shape: NetworkShape) -> LlamaLikeModel:
    """The network of a shape, on the CPU, with random weights, norms and biases. Shared: do not change it."""
    generator = torch.Generator().manual_seed(shape.seed)
    with torch.random.fork_rng(devices=()):
        network = _BUILDERS[shape.family](shape)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * _WEIGHT_SCALE
            # so wide that the experts of a row do not change with rounding
            noise = noise * (_ROUTER_SCALE if name.endswith("mlp.gate.weight") else 1)
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + noise if is_norm else noise)
    module: nn.Module = network
    return cast("LlamaLikeModel", module.to(torch.float64 if shape.double else torch.float32).requires_grad_(False))


def _llada(shape: NetworkShape) -> LlamaLikeModel:
    config = LLaDAConfig(
        d_model=shape.heads * shape.head_width,
        n_layers=shape.layers,
        n_heads=shape.heads,
        n_kv_heads=shape.kv_heads,
        mlp_hidden_size=2 * shape.heads * shape.head_width,
        vocab_size=shape.vocabulary,
        mask_token_id=shape.mask_token_id,
        eos_token_id=shape.eos_token_id,
    )
    return LLaDAModelLM(config)


def _dream(shape: NetworkShape) -> LlamaLikeModel:
    config = DreamConfig(
        hidden_size=shape.heads * shape.head_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=2 * shape.heads * shape.head_width,
        vocab_size=shape.vocabulary,
        mask_token_id=shape.mask_token_id,
        eos_token_id=shape.eos_token_id,
    )
    return DreamModel(config)


def _sizes(shape: NetworkShape) -> dict[str, Any]:
    """Fields that the families under Transformers' names share."""
    width = shape.heads * shape.head_width
    return {
        "hidden_size": width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "vocab_size": shape.vocabulary,
        "mask_token_id": shape.mask_token_id,
        "eos_token_id": shape.eos_token_id,
    }


def _qwen3(shape: NetworkShape) -> Any:
    config = DiffusionQwen3Config(
        **_sizes(shape),
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        intermediate_size=2 * shape.heads * shape.head_width,
        logits_shift=shape.shift,
        block_causal=shape.block_causal,
    )
    return DiffusionQwen3Model(config)


def _llada_moe(shape: NetworkShape) -> Any:
    config = LLaDAMoEConfig(
        **_sizes(shape),
        num_key_value_heads=shape.kv_heads,
        num_experts=4,
        num_experts_per_tok=2,
        expert_intermediate_size=8,
        dense_intermediate_size=8,
        shared_expert_intermediate_size=8,
        moe_layer_freq=[(index + 1) % 2 for index in range(shape.layers)],
    )
    return LLaDAMoEModelLM(config)


def _llada2(shape: NetworkShape) -> Any:
    config = LLaDA2MoeConfig(
        **_sizes(shape),
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_experts=8,
        num_experts_per_tok=3,
        n_group=4,
        topk_group=2,
        first_k_dense_replace=1,
        block_causal=shape.block_causal,
    )
    return LLaDA2MoeModelLM(config)


def _modernbert(shape: NetworkShape) -> Any:
    config = DiffusionModernBertConfig(
        **_sizes(shape),
        intermediate_size=16,
        local_attention=2 * shape.window,
        pad_token_id=None,
        bos_token_id=None,
        cls_token_id=None,
        sep_token_id=None,
    )
    return DiffusionModernBert(config).train(False)


_BUILDERS: dict[Family, Callable[[NetworkShape], Any]] = {
    "llada": _llada,
    "dream": _dream,
    "qwen3": _qwen3,
    "llada-moe": _llada_moe,
    "llada2": _llada2,
    "modernbert": _modernbert,
}
