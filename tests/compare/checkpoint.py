"""A checkpoint folder with random weights and a tokenizer of its own: nothing here depends on trained models."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from freshkv.models import LLaDAConfig, LLaDAModelLM
from freshkv.models.tasks import tasks


def build_tokenizer():
    words = sorted({word for task in tasks().values() for word in task.words})
    words += ["<end>", "<mask>", "<unknown>"]
    inner = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unknown>"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", pad_token="<end>", mask_token="<mask>", unk_token="<unknown>"
    )


def save_checkpoint(folder, seed=0):
    """Write a tiny LLaDA and its tokenizer to ``folder``."""
    tokenizer = build_tokenizer()
    config = LLaDAConfig(
        d_model=16, n_layers=2, n_heads=2, mlp_hidden_size=24, vocab_size=len(tokenizer),
        embedding_size=len(tokenizer), init_std=1.0, mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(seed)
    LLaDAModelLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
