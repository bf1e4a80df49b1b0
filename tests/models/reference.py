"""The published networks written out again in plain torch, one sequence at a time: what loaded ones must equal."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import silu


def rms_norm(hidden, weight, eps):
    return hidden / (hidden.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight


def turn(heads, theta):
    """Rotary embedding of [heads, seq, width] by complex numbers, the halves of a head being the two parts."""
    width = heads.shape[-1]
    angles = torch.arange(heads.shape[1])[:, None] * theta ** (-torch.arange(0, width, 2).double() / width)
    turned = torch.complex(*heads.double().chunk(2, dim=-1)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=-1).to(heads.dtype)


def attend(queries, keys, values, theta):
    """[heads, seq, width] each, grouped keys and values: [seq, heads * width]."""
    group = len(queries) // len(keys)
    queries, keys = turn(queries, theta), turn(keys, theta)
    answers = []
    for head, query in enumerate(queries):
        scores = query @ keys[head // group].T / math.sqrt(query.shape[-1])
        answers.append(scores.softmax(dim=-1) @ values[head // group])
    return torch.cat(answers, dim=-1)


def split(projected, heads):
    return projected.unflatten(-1, (heads, -1)).transpose(0, 1)


def llada_logits(tensors, config, tokens):
    """Logits [seq, vocabulary] of ``tokens``, long [seq]."""
    t = {name.removeprefix("model.transformer."): tensor for name, tensor in tensors.items()}
    hidden = t["wte.weight"][tokens]
    for block in range(config["n_layers"]):
        w = {part: t[f"blocks.{block}.{part}.weight"] for part in (
            "attn_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_norm", "ff_proj", "up_proj", "ff_out"
        )}  # fmt: skip
        normed = rms_norm(hidden, w["attn_norm"], config["rms_norm_eps"])
        queries = split(normed @ w["q_proj"].T, config["n_heads"])
        keys, values = (split(normed @ w[name].T, config["n_kv_heads"]) for name in ("k_proj", "v_proj"))
        hidden = hidden + attend(queries, keys, values, config["rope_theta"]) @ w["attn_out"].T
        normed = rms_norm(hidden, w["ff_norm"], config["rms_norm_eps"])
        hidden = hidden + (silu(normed @ w["ff_proj"].T) * (normed @ w["up_proj"].T)) @ w["ff_out"].T
    head = t["wte.weight"] if config["weight_tying"] else t["ff_out.weight"]
    return rms_norm(hidden, t["ln_f.weight"], config["rms_norm_eps"]) @ head.T


def dream_logits(tensors, config, tokens):
    """Logits [seq, vocabulary] of ``tokens``, long [seq]; row i is for token i + 1."""
    hidden = tensors["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        own = f"model.layers.{layer}."
        w = {name.removeprefix(own): tensor for name, tensor in tensors.items() if name.startswith(own)}
        normed = rms_norm(hidden, w["input_layernorm.weight"], config["rms_norm_eps"])
        queries, keys, values = (
            split(normed @ w[f"self_attn.{part}_proj.weight"].T + w[f"self_attn.{part}_proj.bias"], heads)
            for part, heads in zip(
                "qkv", (config["num_attention_heads"], *[config["num_key_value_heads"]] * 2), strict=True
            )
        )
        hidden = hidden + attend(queries, keys, values, config["rope_theta"]) @ w["self_attn.o_proj.weight"].T
        normed = rms_norm(hidden, w["post_attention_layernorm.weight"], config["rms_norm_eps"])
        gate, up, down = (w[f"mlp.{part}_proj.weight"] for part in ("gate", "up", "down"))
        hidden = hidden + (silu(normed @ gate.T) * (normed @ up.T)) @ down.T
    head = tensors["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    return rms_norm(hidden, tensors["model.norm.weight"], config["rms_norm_eps"]) @ head.T
