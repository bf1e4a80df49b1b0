"""Tiny random networks of every built-in family, built once for each shape."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, cast

import torch
from attrs import frozen
from torch import nn

from freshkv.models import DreamConfig, DreamModel, LLaDAConfig, LLaDAModelLM
from freshkv.models.backbone import LlamaLikeModel

Family = Literal["llada", "dream"]
FAMILIES: tuple[Family, ...] = ("llada", "dream")

# wide enough that rows differ clearly, small enough that no confidence is rounded to 1, where ties begin
_WEIGHT_SCALE = 0.3


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

    @property
    def eos_token_id(self) -> int:
        """The token after the mask token, round the end of the vocabulary."""
        return (self.mask_token_id + 1) % self.vocabulary


@lru_cache(maxsize=512)
def tiny_network(shape: NetworkShape) -> LlamaLikeModel:
    """The network of a shape, on the CPU, with random weights, norms and biases. Shared: do not change it."""
    generator = torch.Generator().manual_seed(shape.seed)
    with torch.random.fork_rng(devices=()):
        network = _dream(shape) if shape.family == "dream" else _llada(shape)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * _WEIGHT_SCALE
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
