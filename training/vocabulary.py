"""The tokenizer of the bundled models: a word of a task is a token."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from freshkv.models.tasks import Task, tasks
from training.recipe import ORDERED_SHARES

END, MASK, UNKNOWN = "<|endoftext|>", "<|mask|>", "<|unknown|>"


def words_of(chosen: list[type[Task]]) -> list[str]:
    """Every word of ``chosen``, digits first, each once."""
    words = {word for task in chosen for word in task.words}
    return sorted(words, key=lambda word: (not word.isdigit(), word))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of the tasks that are trained; the end token is the padding, too."""
    words = [*words_of([tasks()[name] for name in ORDERED_SHARES]), END, MASK, UNKNOWN]
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


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, with the class name that every version of Transformers knows."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    fields = json.loads(file.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    fields.pop("backend", None)
    file.write_text(json.dumps(fields, indent=2) + "\n")
