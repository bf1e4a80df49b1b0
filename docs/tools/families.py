"""The table of model families: what the code says of each, and what only people know: checkpoints and tests."""

from __future__ import annotations

from typing import Any

from freshkv.models import families
from freshkv.models.tensor_parallel import can_divide

QWEN2, QWEN3 = "Transformers' `Qwen2ForCausalLM`", "Transformers' `Qwen3ForCausalLM`"
LLAMA, RECORDED = "Transformers' `LlamaForCausalLM`", "recordings of published code"

#: model_type -> (checkpoints in this form, what its logits are compared with in the tests)
KNOWN: dict[str, tuple[str, str]] = {
    "llada": ("LLaDA-8B-Base, -Instruct, LLaDA-1.5", f"{RECORDED}; the network written out in plain torch"),
    "Dream": (
        "Dream-v0-Base-7B, -Instruct-7B; DiffuCoder-7B, Dream-Coder-v0",
        f"{RECORDED}; the network written out in plain torch",
    ),
    "qwen2": ("Qwen2 and Qwen2.5 weights trained on (Open-dLLM)", QWEN2),
    "a2d-qwen2": ("Tiny-A2D from Qwen2.5", QWEN2),
    "qwen3": ("Qwen3 weights trained on", QWEN3),
    "a2d-qwen3": ("Tiny-A2D: Qwen3-0.6B-diffusion-mdlm; -bd3lm with `block_causal=32`", QWEN3),
    "llama": ("Llama 2 and 3 weights trained on", LLAMA),
    "a2d-llama": ("Tiny-A2D from Llama", LLAMA),
    "lladamoe": ("LLaDA-MoE-7B-A1B-Base, -Instruct", "Transformers' `Qwen3MoeForCausalLM`, whose layers are the same"),
    "sdar": ("SDAR-1.7B, -4B, -8B-Chat", QWEN3),
    "llada2_moe": ("LLaDA2.0-mini, -flash", "Transformers' `Glm4MoeForCausalLM`, whose layers are the same"),
    "Fast_dLLM_Qwen": ("Fast-dLLM v2 1.5B, 7B", QWEN2),
    "modernbert": ("any ModernBERT with its masked-LM head", "Transformers' `ModernBertForMaskedLM`"),
}


def rows() -> list[tuple[str, ...]]:
    """Family, checkpoints, where logits are, what a row sees, whether it can be divided, what it is tested against."""
    return [
        (
            f"`{name}`",
            KNOWN[name][0],
            _logits(family.config_class()),
            _sees(family.config_class()),
            "yes" if can_divide(family) else "no",
            KNOWN[name][1],
        )
        for name, family in families().items()
        if name in KNOWN
    ]


def _logits(config: Any) -> str:
    shift = getattr(config, "logits_shift", 0)
    return "in the row before" if shift == 1 else "in place"


def _sees(config: Any) -> str:
    block = getattr(config, "block_causal", None)
    if block is not None:
        return f"its own block and those before; {block} positions"
    window = getattr(config, "local_attention", None)
    return (
        "everything" if window is None else f"everything in global layers, {window // 2} positions around in local ones"
    )
