"""The shapes of the bundled models, in the official configurations' field names."""

from __future__ import annotations

import math

import torch
from transformers import PreTrainedTokenizerFast

from freshkv.models.backbone import LlamaLikeModel
from freshkv.models.dream import DreamConfig, DreamModel
from freshkv.models.llada import LLaDAConfig, LLaDAModelLM

WIDTH, HEADS, FEED_FORWARD = 128, 4, 384
ROPE_THETA = 1000.0  # canvases are short

#: what official configurations say besides; it does not change the networks
LLADA_FACTS = {
    "activation_type": "silu",
    "alibi": False,
    "attention_dropout": 0.0,
    "attention_layer_norm": False,
    "block_group_size": 1,
    "block_type": "llama",
    "flash_attention": False,
    "input_emb_norm": False,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
    "use_cache": False,
}
DREAM_FACTS = {
    "attention_dropout": 0.0,
    "sliding_window": None,
    "use_cache": True,
    "use_sliding_window": False,
}


def build(name: str, tokenizer: PreTrainedTokenizerFast, layers: int, seed: int) -> LlamaLikeModel:
    """A network of freshly drawn weights: ``tiny-llada`` or ``tiny-dream``."""
    model = _tiny_llada(tokenizer, layers) if name == "tiny-llada" else _tiny_dream(tokenizer, layers)
    draw_weights(model, seed)
    return model


def _tiny_llada(tokenizer: PreTrainedTokenizerFast, layers: int) -> LlamaLikeModel:
    config = LLaDAConfig(
        d_model=WIDTH,
        n_layers=layers,
        n_heads=HEADS,
        n_kv_heads=HEADS,
        mlp_hidden_size=FEED_FORWARD,
        vocab_size=len(tokenizer),
        embedding_size=len(tokenizer),
        max_sequence_length=1024,
        rope_theta=ROPE_THETA,
        mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **LLADA_FACTS,
    )
    return LLaDAModelLM(config)


def _tiny_dream(tokenizer: PreTrainedTokenizerFast, layers: int) -> LlamaLikeModel:
    config = DreamConfig(
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        intermediate_size=FEED_FORWARD,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        rope_theta=ROPE_THETA,
        mask_token_id=tokenizer.mask_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **DREAM_FACTS,
    )
    return DreamModel(config)


@torch.no_grad()
def draw_weights(model: LlamaLikeModel, seed: int) -> None:
    """Normal weights with a variance of 1 / inputs, a small head; norms and biases as they are born."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.normal_(0.0, 1 / math.sqrt(parameter.shape[1]), generator=generator)
    model.embedding.weight.normal_(0.0, 0.5, generator=generator)
    model.head.weight.normal_(0.0, 0.02, generator=generator)
