"""What a command answers: a text of the user's own, or a problem of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from freshkv.cli.console import say
from freshkv.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from freshkv.compare.cases import Case

PROMPT_GEN_LENGTH = 128  #: tokens of an answer to a text


@frozen(kw_only=True)
class Question:
    """What is answered."""

    ids: tuple[int, ...]
    seed: int  #: of the random numbers
    gen_length: int  #: tokens of an answer, if not told otherwise
    case: Case | None  #: None: a text of the user's own


def check_source(prompt: str | None, task: str | None) -> None:
    """Raise InputError where both are given."""
    if prompt is not None and task is not None:
        raise InputError("--prompt and --task exclude each other: a task has prompts of its own.")


def ask(
    prompt: str | None,
    task: str | None,
    seed: int,
    problem: int,
    tokenizer: PreTrainedTokenizerBase,
    raw: bool,
    *,
    quiet: bool = False,
) -> Question:
    """The question of these arguments, shown unless ``quiet``. Without prompt and task: of the first task."""
    from freshkv.compare.cases import draw_case
    from freshkv.compare.experiment import resolve_task
    from freshkv.compare.prompts import encode_prompt
    from freshkv.models.tasks import tasks

    if prompt is not None:
        ids = encode_prompt(tokenizer, prompt, raw=raw)
        if not quiet:
            _show_prompt(prompt, ids, tokenizer)
        return Question(ids=ids, seed=seed, gen_length=PROMPT_GEN_LENGTH, case=None)
    chosen = resolve_task(next(iter(tasks())) if task is None else task)
    case = draw_case(chosen, seed, problem, tokenizer, raw=raw)
    if not quiet:
        _show_prompt(case.problem.prompt, case.prompt, tokenizer)
    return Question(ids=case.prompt, seed=case.sampling_seed, gen_length=chosen.gen_length, case=case)


def _show_prompt(text: str, ids: tuple[int, ...], tokenizer: PreTrainedTokenizerBase) -> None:
    say(f"prompt: {text}")
    unknown = 0 if tokenizer.unk_token_id is None else ids.count(tokenizer.unk_token_id)
    if unknown > 0:
        say(
            f"Warning: the model's tokenizer does not know {unknown} of the prompt's {len(ids)} tokens. The bundled "
            "models know their tasks' words only: try --task.",
            style="yellow",
        )
