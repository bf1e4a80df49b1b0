"""Small networks of every family, and Transformers' own implementation of the same weights."""

from __future__ import annotations

import copy

import torch
from transformers import (
    Glm4MoeConfig,
    Glm4MoeForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from freshkv.models import families

SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "vocab_size": 60, "eos_token_id": 59,
}  # fmt: skip
OWN = {"mask_token_id": 58}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
MOE = {
    **{name: SHAPE[name] for name in SHAPE if name != "intermediate_size"},
    "num_experts": 6,
    "num_experts_per_tok": 2,
}
LLADA2 = {
    **SHAPE, "moe_intermediate_size": 16, "head_dim": 16, "num_experts": 8, "num_experts_per_tok": 3, "n_group": 4,
    "topk_group": 2, "first_k_dense_replace": 1, "block_causal": 4,
}  # fmt: skip

#: name of a variant -> model_type, fields
VARIANTS = {
    "qwen2": ("qwen2", {**SHAPE, "rope_parameters": ROPE}),
    "qwen2-tied": ("a2d-qwen2", {**SHAPE, "rope_parameters": ROPE, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**SHAPE, "rope_parameters": ROPE, "head_dim": 16}),
    "qwen3-biases": ("a2d-qwen3", {**SHAPE, "rope_parameters": ROPE, "head_dim": 8, "attention_bias": True}),
    "qwen3-blocks": ("a2d-qwen3", {**SHAPE, "rope_parameters": ROPE, "head_dim": 8, "block_causal": 3}),
    "qwen3-yarn": ("qwen3", {
        **SHAPE, "head_dim": 16,
        "rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    }),
    "llama": ("llama", {**SHAPE, "rope_parameters": ROPE}),
    "llama3": ("a2d-llama", {**SHAPE, "rope_parameters": LLAMA3, "mlp_bias": True, "attention_bias": True}),
    "sdar": ("sdar", {**SHAPE, "rope_parameters": ROPE, "head_dim": 16, "block_size": 4}),
    "fast-dllm": ("Fast_dLLM_Qwen", {**SHAPE, "rope_parameters": ROPE, "bd_size": 5}),
    "llada-moe": ("lladamoe", {**MOE, "expert_intermediate_size": 24, "rope_theta": 10000.0}),
    "llada-moe-mixed": ("lladamoe", {
        **MOE, "expert_intermediate_size": 24, "dense_intermediate_size": 40, "moe_layer_freq": [0, 1, 1],
        "rope_theta": 10000.0,
    }),
    "llada2": ("llada2_moe", {**LLADA2, "rope_theta": 10000.0}),
    "llada2-unblocked": ("llada2_moe", {**LLADA2, "rope_theta": 10000.0, "block_causal": None}),
    "modernbert": ("modernbert", {
        **{name: SHAPE[name] for name in SHAPE if name != "num_key_value_heads"}, "num_hidden_layers": 4,
        "local_attention": 6, "pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "sep_token_id": 2,
    }),
}  # fmt: skip


def make(variant, **changes):
    """A network of a variant with large random weights, norms and biases."""
    model_type, fields = VARIANTS[variant]
    family = families()[model_type]
    network = family(family.config_class(**{**copy.deepcopy(fields), **OWN, **changes})).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in [*network.named_parameters(), *network.named_buffers()]:
            if name.endswith("inv_freq"):
                continue
            noise = torch.randn(parameter.shape, generator=generator) * 0.25
            parameter.copy_(noise + (parameter.ndim == 1 and name.endswith("weight")))
    return network.requires_grad_(False)


def of_transformers(variant):
    """(Transformers' implementation, the function that turns our state dict into its own) of a variant."""
    model_type, fields = VARIANTS[variant]
    kind = model_type.removeprefix("a2d-")
    kept = {
        name: value
        for name, value in copy.deepcopy(fields).items()
        if name not in ("bd_size", "block_size", "block_causal")
    }
    if kind in ("qwen2", "Fast_dLLM_Qwen"):
        return Qwen2ForCausalLM(Qwen2Config(**kept)), dict
    if kind in ("qwen3", "sdar"):
        return Qwen3ForCausalLM(Qwen3Config(**kept)), dict
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**kept)), dict
    if kind == "lladamoe":
        return _qwen3_moe(kept)
    if kind == "llada2_moe":
        return _glm4_moe(kept)
    return ModernBertForMaskedLM(ModernBertConfig(**kept)), dict


def _qwen3_moe(fields):
    """Qwen3-MoE without renormalised probabilities has LLaDA-MoE's layers; its experts are stacked."""
    dense = [index for index, kind in enumerate(fields.get("moe_layer_freq") or ()) if kind == 0]
    config = Qwen3MoeConfig(
        **{name: fields[name] for name in MOE}, moe_intermediate_size=fields["expert_intermediate_size"],
        intermediate_size=fields.get("dense_intermediate_size", 8), norm_topk_prob=False, mlp_only_layers=dense,
        decoder_sparse_step=1, rope_parameters=ROPE, rms_norm_eps=1e-5, head_dim=8,
    )  # fmt: skip
    return Qwen3MoeForCausalLM(config), _stack_experts


def _glm4_moe(fields):
    """GLM-4.5 has LLaDA2's layers; queries, keys and values are apart there, experts stacked, the bias renamed."""
    config = Glm4MoeConfig(
        **SHAPE, moe_intermediate_size=16, head_dim=16, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3,
        n_group=4, topk_group=2, first_k_dense_replace=1, routed_scaling_factor=2.5, norm_topk_prob=True,
        use_qk_norm=True, attention_bias=False, rms_norm_eps=1e-6,
        rope_parameters={**ROPE, "partial_rotary_factor": 0.5},
    )  # fmt: skip

    def convert(state):
        renamed = {}
        for name, tensor in state.items():
            new = name.replace("word_embeddings", "embed_tokens").replace(".attention.", ".self_attn.")
            new = new.replace("query_layernorm", "q_norm").replace("key_layernorm", "k_norm")
            new = new.replace("self_attn.dense", "self_attn.o_proj").replace(
                "gate.expert_bias", "gate.e_score_correction_bias"
            )
            if "query_key_value" in new:
                for part, rows in zip("qkv", tensor.split((64, 32, 32)), strict=True):
                    renamed[new.replace("query_key_value", f"{part}_proj")] = rows
            else:
                renamed[new] = tensor
        return _stack_experts(renamed)

    return Glm4MoeForCausalLM(config), convert


def _stack_experts(state):
    """``experts.N.gate_proj`` and so on to the stacked tensors of Transformers 5."""
    stacked, rest = {}, {}
    for name, tensor in state.items():
        before, found, after = name.partition(".experts.")
        if found:
            number, part, _ = after.split(".")
            stacked.setdefault(before + found, {})[int(number), part] = tensor
        else:
            rest[name] = tensor
    for name, parts in stacked.items():
        count = 1 + max(number for number, _ in parts)
        both = [torch.cat((parts[n, "gate_proj"], parts[n, "up_proj"])) for n in range(count)]
        rest[f"{name}gate_up_proj"] = torch.stack(both)
        rest[f"{name}down_proj"] = torch.stack([parts[n, "down_proj"] for n in range(count)])
    return rest
