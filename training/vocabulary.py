"""The tokenizer of the bundled models: a word of a task is a token."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from freshkv.models.tasks import Task, tasks

END, MASK, UNKNOWN = "<|endoftext|>", "<|mask|>", "<|unknown|>"


def words_of(chosen: list[Task]) -> list[str]:
    """Every word of ``chosen``, digits first, each once."""
    words = {word for task in chosen for word in task.words}
    return sorted(words, key=lambda word: (not word.isdigit(), word))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of all built-in tasks; the end token is the padding, too."""
    words = [*words_of([task() for task in tasks().values()]), END, MASK, UNKNOWN]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        mask_token=MASK,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
