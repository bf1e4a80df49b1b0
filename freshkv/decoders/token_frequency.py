"""Count how often each token occurs in a corpus, keep the counts in a file, and read them back as frequencies."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from freshkv.core.errors import InputError

#: name -> table that comes with the package
BUNDLED = {"tiny": Path(__file__).with_name("tiny_frequencies.json")}


def count_tokens(texts: Iterable[str], tokenizer: Any) -> dict[int, int]:
    """Token id to number of occurrences in ``texts``, encoded by a transformers tokenizer without special tokens."""
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(tokenizer.encode(text, add_special_tokens=False))
    return dict(sorted(counts.items()))


def count_file(corpus: str | Path, tokenizer: Any, output: str | Path) -> None:
    """Count the tokens of a text file, line by line, and write them to ``output`` as JSON.

    Raises InputError for a corpus that cannot be read or holds no token.
    """
    try:
        with Path(corpus).open(encoding="utf-8") as lines:
            counts = count_tokens((line.rstrip("\n") for line in lines), tokenizer)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the corpus {corpus}: {error}.") from error
    write_counts(counts, output)


def write_counts(counts: dict[int, int], output: str | Path) -> None:
    """Write counts as JSON: ``{"counts": {"token id": occurrences}}``. Raises InputError if there are none."""
    if not counts:
        raise InputError("The corpus holds no token, so there is nothing to count.")
    text = json.dumps({"counts": {str(token): count for token, count in sorted(counts.items())}})
    Path(output).write_text(text + "\n", encoding="utf-8")


@lru_cache(maxsize=8)
def read_frequencies(name: str, vocabulary: int) -> Tensor:
    """Share of each token, float32 [vocabulary], from a bundled table or a file that ``write_counts`` wrote.

    Raises InputError for a file that is missing, damaged, or counts tokens beyond the vocabulary.
    """
    path = BUNDLED.get(name, Path(name))
    try:
        counts = {int(token): int(count) for token, count in json.loads(path.read_text("utf-8"))["counts"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"Cannot read token frequencies from {name}: {error}. Expected a file written by "
            f"freshkv.decoders.token_frequency.count_file, or one of: {', '.join(BUNDLED)}."
        ) from error
    if not counts or min(counts) < 0 or max(counts) >= vocabulary:
        raise InputError(f"The table {name} counts token ids outside the model's vocabulary, 0 to {vocabulary - 1}.")
    table = torch.zeros(vocabulary)
    table[list(counts)] = torch.tensor(list(counts.values()), dtype=torch.float32)
    return table / table.sum()
