"""Answer a question with a LLaDA or Dream checkpoint. No code of the checkpoint is run.

python examples/load_a_checkpoint.py
python examples/load_a_checkpoint.py --model GSAI-ML/LLaDA-8B-Instruct --device cuda --dtype bfloat16 \
    --prompt "Why is the sky blue?" --gen-length 128
python examples/load_a_checkpoint.py --model path/to/Dream-v0-Instruct-7B --policy d2cache --block-length 128
"""

from __future__ import annotations

import argparse

import torch

import freshkv


def main() -> None:
    """Load, encode with the chat template where there is one, decode, and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-llada", help="a folder, a hub id, or a bundled model")
    parser.add_argument("--prompt", default="weave 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2")
    parser.add_argument("--policy", default="dual")
    parser.add_argument("--decoder", default="threshold:threshold=0.9")
    parser.add_argument("--gen-length", type=int, default=64)
    parser.add_argument("--block-length", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto", help="auto: as the checkpoint is stored")
    arguments = parser.parse_args()

    tokenizer = freshkv.load_tokenizer(arguments.model)
    model = freshkv.load(arguments.model, device=arguments.device, dtype=arguments.dtype)
    text = arguments.prompt
    if tokenizer.chat_template is not None:
        chat = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    ids = torch.tensor([tokenizer.encode(text)])  # long [batch, prompt]

    run = freshkv.generate(
        model,
        ids,
        policy=arguments.policy,
        decoder=arguments.decoder,
        gen_length=arguments.gen_length,
        block_length=arguments.block_length,
    )
    print(tokenizer.decode(run.responses[0], skip_special_tokens=True))
    stats = run.stats
    print(f"{stats.forwards} forward passes, {stats.tokens_per_second:.0f} tokens/s, {stats.cache_bytes:,} B cached")


if __name__ == "__main__":
    main()
