"""The bundled models: their tokenizer covers every task, they load, they are small, and they have learned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import freshkv
from freshkv.models.registry import bundled_models
from freshkv.models.tasks import Sudoku, Sums, Task, Weave

MODELS = ("tiny-dream", "tiny-llada")
LARGEST = 12 * 2**20  # bytes of one model's folder

every_model = pytest.mark.parametrize("name", MODELS)
every_task = pytest.mark.parametrize("task", [Sums(), Sudoku(), Weave()], ids=lambda task: task.name)


@pytest.fixture(scope="module", params=MODELS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(bundled_models()[request.param])


def test_both_models_are_there():
    assert set(MODELS) <= set(bundled_models())


@every_model
def test_a_folder_has_all_files_and_is_small(name: str):
    folder = bundled_models()[name]
    files = {file.name: file.stat().st_size for file in folder.iterdir()}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= set(files)
    assert sum(files.values()) <= LARGEST


@every_task
@given(seed=st.integers(0, 2**32))
def test_the_tokenizer_gives_problems_back_word_for_word(tokenizer: PreTrainedTokenizerFast, task: Task, seed: int):
    (problem,) = task.generate(1, seed)
    for text in (problem.prompt, problem.answer):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert len(ids) == len(text.split())
    assert len(tokenizer.encode(problem.answer)) == task.gen_length


@every_task
def test_the_vocabulary_has_every_word_of_a_task(tokenizer: PreTrainedTokenizerFast, task: Task):
    assert set(task.words) <= set(tokenizer.get_vocab())


@every_model
def test_configuration_and_tokenizer_agree_on_the_special_tokens(name: str):
    folder = bundled_models()[name]
    tokenizer, config = PreTrainedTokenizerFast.from_pretrained(folder), freshkv.load(name).config
    assert (tokenizer.mask_token, tokenizer.eos_token) == ("<|mask|>", "<|endoftext|>")
    assert config.mask_token_id == tokenizer.mask_token_id
    assert config.eos_token_id == config.pad_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert config.vocab_size == len(tokenizer)
    assert tokenizer.padding_side == "left"


@every_task
@every_model
def test_a_bundled_model_solves_problems_it_has_never_seen(name: str, task: Task):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bundled_models()[name])
    problems = task.generate(4, seed=3)
    prompts = torch.tensor([tokenizer.encode(problem.prompt) for problem in problems])
    run = freshkv.generate(freshkv.load(name), prompts, policy="dual", gen_length=task.gen_length, block_length=16)
    answers = tokenizer.batch_decode(run.sequences[:, prompts.shape[1] :])
    assert [task.check(problem, answer) for problem, answer in zip(problems, answers, strict=True)] == [True] * 4
