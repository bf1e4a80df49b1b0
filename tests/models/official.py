"""Writes checkpoints as their authors publish them: names of tensors, shards, index, fields, tokenizer files. Small."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

#: files of the code that comes with a checkpoint; freshkv must never run it
POISON = "raise SystemExit('code of a checkpoint was run')\n"

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())

LLADA_CONFIG = {
    "activation_type": "silu", "alibi": False, "alibi_bias_max": 8.0, "architectures": ["LLaDAModelLM"],
    "attention_dropout": 0.0, "attention_layer_norm": False, "attention_layer_norm_with_affine": True,
    "auto_map": {
        "AutoConfig": "configuration_llada.LLaDAConfig",
        "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
        "AutoModel": "modeling_llada.LLaDAModelLM",
    },
    "bias_for_layer_norm": False, "block_group_size": 1, "block_type": "llama", "d_model": 32, "embedding_dropout": 0.0,
    "embedding_size": 288, "eos_token_id": 257, "flash_attention": False, "include_bias": False,
    "include_qkv_bias": False, "init_cutoff_factor": None, "init_device": "meta", "init_fn": "mitchell",
    "init_std": 0.02, "input_emb_norm": False, "layer_norm_type": "rms", "layer_norm_with_affine": True,
    "mask_token_id": 263, "max_sequence_length": 4096, "mlp_hidden_size": 48, "mlp_ratio": 4, "model_type": "llada",
    "multi_query_attention": None, "n_heads": 4, "n_kv_heads": 4, "n_layers": 3, "pad_token_id": 257,
    "precision": "amp_bf16", "residual_dropout": 0.0, "rms_norm_eps": 1e-05, "rope": True, "rope_full_precision": True,
    "rope_theta": 500000.0, "scale_logits": False, "transformers_version": "4.46.3", "use_cache": False,
    "vocab_size": 288, "weight_tying": False,
}  # fmt: skip

DREAM_CONFIG = {
    "architectures": ["DreamModel"], "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_dream.DreamConfig", "AutoModel": "modeling_dream.DreamModel"},
    "bos_token_id": 256, "eos_token_id": 256, "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02,
    "intermediate_size": 48, "mask_token_id": 260, "max_position_embeddings": 131072, "max_window_layers": 28,
    "model_type": "Dream", "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "pad_token_id": 256, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000.0, "sliding_window": None,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16", "transformers_version": "4.46.2", "use_cache": True,
    "use_sliding_window": False, "vocab_size": 272,
}  # fmt: skip

#: token -> id, as the real ones follow each other
LLADA_TOKENS = {
    "<|startoftext|>": 256, "<|endoftext|>": 257, "[CLS]": 258, "[gMASK]": 259, "<|start_header_id|>": 260,
    "<|end_header_id|>": 261, "<|eot_id|>": 262, "<|mdm_mask|>": 263,
}  # fmt: skip
DREAM_TOKENS = {"<|endoftext|>": 256, "<|im_start|>": 257, "<|im_end|>": 258, "<|beginoftext|>": 259, "<|mask|>": 260}

LLADA_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
DREAM_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def llada_shapes(config):
    """Name -> shape of every tensor, in the order of the files."""
    width, inner, rows = config["d_model"], config["mlp_hidden_size"], config["embedding_size"]
    kv_width = width // config["n_heads"] * config["n_kv_heads"]
    shapes = {"model.transformer.wte.weight": (rows, width)}
    for block in range(config["n_layers"]):
        parts = {
            "attn_norm": (width,), "attn_out": (width, width), "ff_norm": (width,), "ff_out": (width, inner),
            "ff_proj": (inner, width), "k_proj": (kv_width, width), "q_proj": (width, width), "up_proj": (inner, width),
            "v_proj": (kv_width, width),
        }  # fmt: skip
        shapes |= {f"model.transformer.blocks.{block}.{name}.weight": shape for name, shape in parts.items()}
    shapes["model.transformer.ln_f.weight"] = (width,)
    if not config["weight_tying"]:
        shapes["model.transformer.ff_out.weight"] = (rows, width)
    return shapes


def dream_shapes(config):
    """Name -> shape of every tensor, in the order of the files."""
    width, inner, rows = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv_width = width // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes = {} if config["tie_word_embeddings"] else {"lm_head.weight": (rows, width)}
    shapes["model.embed_tokens.weight"] = (rows, width)
    for layer in range(config["num_hidden_layers"]):
        parts = {
            "input_layernorm.weight": (width,), "mlp.down_proj.weight": (width, inner),
            "mlp.gate_proj.weight": (inner, width), "mlp.up_proj.weight": (inner, width),
            "post_attention_layernorm.weight": (width,), "self_attn.k_proj.bias": (kv_width,),
            "self_attn.k_proj.weight": (kv_width, width), "self_attn.o_proj.weight": (width, width),
            "self_attn.q_proj.bias": (width,), "self_attn.q_proj.weight": (width, width),
            "self_attn.v_proj.bias": (kv_width,), "self_attn.v_proj.weight": (kv_width, width),
        }  # fmt: skip
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    shapes["model.norm.weight"] = (width,)
    return shapes


def draw(shapes, seed, dtype):
    """Random tensors, norms near 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()}
    return {name: (tensor + ("norm" in name or "ln_f" in name)).to(dtype) for name, tensor in tensors.items()}


def write_shards(folder, tensors, count):
    """``count`` files and their index, named and filled as the hub's are."""
    names, weight_map = list(tensors), {}
    share = -(-len(names) // count)
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        mine = {name: tensors[name] for name in names[shard * share : (shard + 1) * share]}
        save_file(mine, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": weight_map})


def write_json(path, fields):
    path.write_text(json.dumps(fields, indent=2), encoding="utf-8")


def added(tokens):
    kinds = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {str(number): {"content": token, **kinds} for token, number in tokens.items()}


def write_llada(folder, *, seed=0, dtype=torch.bfloat16, shards=6, **changes):
    """As GSAI-ML/LLaDA-8B-Instruct is laid out; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**LLADA_CONFIG, **changes}
    tensors = draw(llada_shapes(config), seed, dtype)
    write_shards(folder, tensors, shards)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {
        "_from_model_config": True, "eos_token_id": 257, "pad_token_id": 257, "transformers_version": "4.46.3",
        "use_cache": False,
    })  # fmt: skip
    for name in ("configuration_llada.py", "modeling_llada.py"):
        (folder / name).write_text(POISON)
    tokenizer = Tokenizer(models.BPE({byte: number for number, byte in enumerate(BYTES)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in LLADA_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False, "add_eos_token": False, "added_tokens_decoder": added(LLADA_TOKENS),
        "bos_token": "<|startoftext|>", "chat_template": LLADA_TEMPLATE, "clean_up_tokenization_spaces": False,
        "cls_token": "[CLS]", "eos_token": "<|endoftext|>", "fast_tokenizer": True, "gmask_token": "[gMASK]",
        "merges_file": None, "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 1000000000000000019884624838656, "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast", "trust_remote_code": True, "vocab_file": None,
    })  # fmt: skip
    write_json(folder / "special_tokens_map.json", {
        "bos_token": "<|startoftext|>", "cls_token": "[CLS]", "eos_token": "<|endoftext|>", "gmask_token": "[gMASK]",
        "pad_token": "<|endoftext|>",
    })  # fmt: skip
    return tensors


def write_dream(folder, *, seed=0, dtype=torch.bfloat16, shards=4, **changes):
    """As Dream-org/Dream-v0-Instruct-7B is laid out: no tokenizer.json; returns its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**DREAM_CONFIG, **changes}
    tensors = draw(dream_shapes(config), seed, dtype)
    write_shards(folder, tensors, shards)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", {
        "_from_model_config": True, "alg": "origin", "alg_temp": None, "bos_token_id": 256, "eos_token_id": 256,
        "eps": 0.001, "mask_token_id": None, "output_history": False, "pad_token_id": 256, "steps": 512,
        "temperature": 0.0, "top_k": None, "top_p": None, "transformers_version": "4.46.2",
    })  # fmt: skip
    for name in ("configuration_dream.py", "modeling_dream.py", "generation_utils.py", "tokenization_dream.py"):
        (folder / name).write_text(POISON)
    write_json(folder / "vocab.json", {byte: number for number, byte in enumerate(BYTES)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    write_json(folder / "added_tokens.json", DREAM_TOKENS)
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added(DREAM_TOKENS),
        "additional_special_tokens": ["<|beginoftext|>", "<|mask|>"],
        "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}, "bos_token": "<|beginoftext|>",
        "chat_template": DREAM_TEMPLATE, "clean_up_tokenization_spaces": False, "eos_token": "<|endoftext|>",
        "errors": "replace", "mask_token": "<|mask|>", "model_max_length": 131072, "pad_token": "<|endoftext|>",
        "split_special_tokens": False, "tokenizer_class": "DreamTokenizer", "unk_token": None,
    })  # fmt: skip
    write_json(folder / "special_tokens_map.json", {
        "additional_special_tokens": ["<|beginoftext|>", "<|mask|>"],
        **{role: {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
           for role, token in (("bos_token", "<|beginoftext|>"), ("eos_token", "<|endoftext|>"),
                               ("mask_token", "<|mask|>"), ("pad_token", "<|endoftext|>"))},
    })  # fmt: skip
    return tensors
