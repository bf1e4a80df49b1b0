"""Models that take a moment, and lm-eval without its long list of tasks."""

from __future__ import annotations

import warnings

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from freshkv.compare.measure import Subject
from freshkv.evaluation.model_args import ModelOptions
from freshkv.evaluation.processes import Processes
from freshkv.evaluation.session import EvaluationSession
from freshkv.models import DreamConfig, DreamModel, load
from freshkv.models.tokenizer import load_tokenizer
from tests.compare.checkpoint import build_tokenizer, save_checkpoint

with warnings.catch_warnings():
    # not ours: what lm-eval and its dependencies say when they are imported
    warnings.simplefilter("ignore")
    import lm_eval.evaluator
    import lm_eval.tasks  # noqa: F401

ALONE = Processes(rank=0, size=1, device=None)
CHAT = (
    "{% for turn in messages %}{{ turn['role'] }} {{ turn['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A random LLaDA and its tokenizer."""
    return str(save_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory):
    """The same with a chat template."""
    folder = save_checkpoint(tmp_path_factory.mktemp("chat"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def subject(checkpoint):
    return Subject(load(checkpoint), load_tokenizer(checkpoint))


@pytest.fixture(scope="session")
def dream_subject():
    """A random Dream: logits of position i in row i - 1."""
    tokenizer = build_tokenizer()
    config = DreamConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24,
        vocab_size=len(tokenizer), initializer_range=0.5, mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(1)
    return Subject(DreamModel(config).eval().requires_grad_(False), tokenizer)


@pytest.fixture
def session(subject, checkpoint):
    """A function from changed options to a session with the random model."""

    def make(of=subject, **changes):
        options = ModelOptions(pretrained=checkpoint, **{"gen_length": 8, **changes})
        return EvaluationSession(of, options, ALONE, checkpoint)

    return make


@pytest.fixture
def evaluate(checkpoint):
    """A function that runs local tasks through lm-eval's Python interface."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    def run(folder, *names, model=None, harness=None, **arguments):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        options = {"pretrained": checkpoint, **(model or {})}
        return simple_evaluate(
            "freshkv",
            options,
            tasks=list(names),
            task_manager=manager,
            bootstrap_iters=0,
            **(harness or {}),
            **arguments,
        )

    return run
