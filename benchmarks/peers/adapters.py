"""How each implementation is loaded and run. Only public functions and classes of theirs are called.

An adapter takes the repository's folder, a checkpoint's folder, a method and a setting, and returns a function that
decodes a prompt, long [1, prompt], and tells a gate where steps begin. It gives all
tokens, long [1, prompt + response].
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.networks import DTYPES
from benchmarks.peers.gate import Gate
from benchmarks.peers.methods import METHODS, Setting
from benchmarks.peers.stubs import stub

Run = Callable[[Tensor, Gate], Tensor]
Adapter = Callable[[Path | None, Path, str, Setting], Run]


def _gated(model: nn.Module, decode: Callable[[Tensor], Tensor]) -> Run:
    """A step begins when the model is called."""

    def run(prompt: Tensor, gate: Gate) -> Tensor:
        handle = model.register_forward_pre_hook(lambda module, arguments: gate.step_begins())
        try:
            tokens = decode(prompt)
        finally:
            handle.remove()
        gate.run_ends()
        return tokens

    return run


def _filled(model: nn.Module, checkpoint: Path, setting: Setting) -> Any:
    """``model`` with the checkpoint's weights."""
    weights = load_file(checkpoint / "model.safetensors")
    # fields that Transformers gave every configuration when these were written
    for name, value in (("use_cache", False), ("use_return_dict", True)):
        if not hasattr(model.config, name):
            setattr(model.config, name, value)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise RuntimeError(f"the weights do not fit: {missing[:3]} missing, {unexpected[:3]} unexpected")
    return model.to(DTYPES[setting.dtype]).eval().requires_grad_(False)


def _config_fields(checkpoint: Path) -> dict[str, Any]:
    """The network's numbers, under the names of the official configuration, which all peers share."""
    from freshkv.models import LLaDAConfig

    ours = LLaDAConfig.from_pretrained(checkpoint)
    same = ("d_model", "n_layers", "n_heads", "n_kv_heads", "mlp_hidden_size", "vocab_size", "embedding_size")
    fields = {name: getattr(ours, name) for name in same}
    fields |= {name: getattr(ours, name) for name in ("rope_theta", "rms_norm_eps", "mask_token_id", "eos_token_id")}
    return fields | {
        "block_type": "llama",
        "layer_norm_type": "rms",
        "activation_type": "silu",
        "rope": True,
        "rope_full_precision": True,
        "alibi": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "bias_for_layer_norm": False,
        "attention_dropout": 0.0,
        "residual_dropout": 0.0,
        "embedding_dropout": 0.0,
        "layer_norm_with_affine": True,
        "weight_tying": False,
        "flash_attention": False,
        "max_sequence_length": 8192,
        "init_device": "cpu",
        "use_cache": False,
        "pad_token_id": ours.eos_token_id,
    }


def plain(path: Path | None, checkpoint: Path, method: str, setting: Setting) -> Run:
    """freshkv with its weights as they are loaded, and no option that makes it faster."""
    return ours(path, checkpoint, method, setting, weights="plain")


def prepacked(path: Path | None, checkpoint: Path, method: str, setting: Setting) -> Run:
    """freshkv with weights prepacked for oneDNN, and with projections of the first layer reused."""
    return ours(path, checkpoint, method, setting, weights="prepacked")


def ours(path: Path | None, checkpoint: Path, method: str, setting: Setting, *, weights: str = "compiled") -> Run:
    """freshkv with its own products, and with projections of the first layer reused."""
    import freshkv
    from benchmarks.weights import WEIGHTS

    model = freshkv.load(checkpoint, dtype=setting.dtype, prepacked=WEIGHTS[weights])
    policy = METHODS[method].spec(setting)

    def run(prompt: Tensor, gate: Gate) -> Tensor:
        gate.step_begins()
        left = setting.steps

        def on_step(record: object) -> None:
            nonlocal left
            left -= 1
            if left > 0:
                gate.step_begins()

        result = freshkv.generate(
            model,
            prompt,
            policy=policy,
            gen_length=setting.response,
            block_length=setting.block,
            on_step=on_step,
            reuse_projections=weights != "plain",
        )
        gate.run_ends()
        return result.sequences

    return run


def d2cache(path: Path | None, checkpoint: Path, method: str, setting: Setting) -> Run:
    """Kamichanw/d2Cache: its own method and its versions of the others."""
    sys.path.insert(0, str(path))
    stub("omegaconf", "hydra", "hydra.utils", "hydra.core", "hydra.core.hydra_config", "loguru", "dotenv", "dill")
    stub("accelerate", "accelerate.utils", "lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.api.instance")
    from functools import partial

    import src.generation.utils
    from src.cache import PrefixCache, d2Cache, dLLMCache
    from src.generation.vanilla import vanilla_generate
    from src.models import LLaDAConfig, LLaDAModelLM

    # some of its functions take this from nowhere else
    os.environ["MASK_TOKEN_ID"] = str(_config_fields(checkpoint)["mask_token_id"])
    caches: dict[str, Any] = {
        "none": None,
        "prefix": partial(PrefixCache, use_dual=False),
        "dual": partial(PrefixCache, use_dual=True),
        "dllm": partial(dLLMCache, kp=setting.kp, kr=setting.kr),
        "d2cache": partial(d2Cache, inflate_w=0),
    }
    # its table of token frequencies, read in any case and used by one decoder, is that of another vocabulary
    src.generation.utils.get_token_freq = lambda family, size: None
    # nothing is tied here, and Transformers came to pass an argument that this method does not know
    LLaDAModelLM.tie_weights = lambda self, **options: None
    model = _filled(LLaDAModelLM(LLaDAConfig(**_config_fields(checkpoint))), checkpoint, setting)
    # its own method reads attention weights, which only this way gives
    model.config._attn_implementation = "eager" if method == "d2cache" else "sdpa"

    def decode(prompt: Tensor) -> Tensor:
        record = vanilla_generate(
            model,
            prompt,
            block_length=setting.block,
            gen_length=setting.response,
            mask_token_id=model.config.mask_token_id,
            eos_token_id=model.config.eos_token_id,
            cache_cls=caches[method],
        )
        frame = record[-1]
        return torch.cat((frame.prompts, frame.generated_tokens), dim=-1)

    return _gated(model, decode)


def fast_dllm(path: Path | None, checkpoint: Path, method: str, setting: Setting) -> Run:
    """NVlabs/Fast-dLLM: prefix and dual caches, and none."""
    sys.path.insert(0, str(path / "llada") if path is not None else "")
    _need_einops()
    from generate import generate, generate_with_dual_cache, generate_with_prefix_cache
    from model.configuration_llada import LLaDAConfig
    from model.modeling_llada import LLaDAModelLM

    functions = {"none": generate, "prefix": generate_with_prefix_cache, "dual": generate_with_dual_cache}
    model = _filled(_built(LLaDAModelLM, LLaDAConfig(**_config_fields(checkpoint))), checkpoint, setting)

    def decode(prompt: Tensor) -> Tensor:
        tokens, _ = functions[method](
            model,
            prompt,
            steps=setting.steps,
            gen_length=setting.response,
            block_length=setting.block,
            mask_id=model.config.mask_token_id,
        )
        return tokens

    return _gated(model, decode)


def dllm_cache(path: Path | None, checkpoint: Path, method: str, setting: Setting) -> Run:
    """maomaocun/dLLM-cache: hooks on the official LLaDA, of which it carries a copy."""
    sys.path.insert(0, str(path))
    _need_einops()
    stub("mmada_models")
    sys.modules["mmada_models"].__path__ = [str(path / "mmada_models")] if path is not None else []
    from dllm_cache.cache import dLLMCache, dLLMCacheConfig
    from dllm_cache.hooks import register_cache_LLaDA
    from mmada_models.configuration_llada import LLaDAConfig
    from mmada_models.modeling_llada import LLaDAModelLM

    stub("utils.utils")
    from utils.generate_function import generate

    model = _filled(_built(LLaDAModelLM, LLaDAConfig(**_config_fields(checkpoint))), checkpoint, setting)
    if method == "dllm":
        options = dLLMCacheConfig(prompt_interval_steps=setting.kp, gen_interval_steps=setting.kr, transfer_ratio=0.25)
        dLLMCache.new_instance(**vars(options))
        register_cache_LLaDA(model, "model.transformer.blocks")
        for block in model.model.transformer.blocks:
            block.forward = _without(block.forward, "block_mask")  # None always; the hooks were written before it
    else:
        dLLMCache.new_instance()

    def decode(prompt: Tensor) -> Tensor:
        response = generate(
            prompt,
            None,
            model,
            steps=setting.steps,
            gen_length=setting.response,
            block_length=setting.block,
            mask_id=model.config.mask_token_id,
        )
        return torch.cat((prompt, response), dim=-1)

    return _gated(model, decode)


def _without(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        options.pop(name, None)
        return function(*arguments, **options)

    return call


def _built(family: Any, config: Any) -> Any:
    """The network; older code has no room for arguments that Transformers came to pass."""
    try:
        return family(config, init_params=False)
    except TypeError:
        return family(config)


def _need_einops() -> None:
    try:
        import einops  # noqa: F401
    except ImportError:
        stub("einops")


ADAPTERS: dict[str, Adapter] = {
    "freshkv": ours,
    "freshkv, prepacked": prepacked,
    "freshkv, plain": plain,
    "d2Cache": d2cache,
    "Fast-dLLM": fast_dllm,
    "dLLM-cache": dllm_cache,
}

#: what each repository implements, by our names
IMPLEMENTS = {
    "freshkv": tuple(METHODS),
    "freshkv, prepacked": tuple(METHODS),
    "freshkv, plain": tuple(METHODS),
    "d2Cache": tuple(METHODS),
    "Fast-dLLM": ("none", "prefix", "dual"),
    "dLLM-cache": ("dllm",),
}
