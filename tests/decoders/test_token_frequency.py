"""Counting tokens, and reading the counts back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import freshkv
from freshkv.core.errors import InputError
from freshkv.decoders.token_frequency import count_file, read_frequencies


def test_a_corpus_is_counted_and_read_back(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("sums 3 3\n3 1\n")
    tokenizer = freshkv.load_tokenizer("tiny-llada")
    count_file(tmp_path / "corpus.txt", tokenizer, tmp_path / "counts.json")
    table = read_frequencies(str(tmp_path / "counts.json"), len(tokenizer))
    three, one, word = (tokenizer.encode(text)[0] for text in ("3", "1", "sums"))
    assert table[[three, one, word]].tolist() == pytest.approx([0.6, 0.2, 0.2])
    assert table.sum() == pytest.approx(1.0)


def test_the_bundled_table_fits_the_bundled_models() -> None:
    for name in ("tiny-llada", "tiny-dream"):
        model = freshkv.load(name)
        table = read_frequencies("tiny", model.network_spec.vocabulary)
        assert table[model.network_spec.mask_token_id] == 0
        ids = torch.tensor([freshkv.load_tokenizer(name).encode("sums 3 1 4")])
        decoder = "pc-sampler:frequencies=tiny"
        run = freshkv.generate(model, ids, decoder=decoder, gen_length=4)
        assert run.trace.facts["decoder"] == decoder


@pytest.mark.parametrize("text", ["", "[]", '{"counts": {"a": 1}}', '{"counts": {}}', '{"counts": {"99999": 1}}'])
def test_a_damaged_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "counts.json").write_text(text)
    with pytest.raises(InputError):
        read_frequencies(str(tmp_path / "counts.json"), 100)


def test_an_empty_or_missing_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    tokenizer = freshkv.load_tokenizer("tiny-llada")
    with pytest.raises(InputError, match="no token"):
        count_file(tmp_path / "empty.txt", tokenizer, tmp_path / "counts.json")
    with pytest.raises(InputError, match="Cannot read the corpus"):
        count_file(tmp_path / "missing.txt", tokenizer, tmp_path / "counts.json")
