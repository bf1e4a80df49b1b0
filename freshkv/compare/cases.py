"""The problems of an experiment, drawn once and handed to every entry alike."""

from __future__ import annotations

from attrs import frozen
from transformers import PreTrainedTokenizerBase

from freshkv.compare.experiment import Experiment
from freshkv.compare.prompts import encode_prompt
from freshkv.models.tasks import Problem, Task

CaseKey = tuple[str, int, int]


@frozen(kw_only=True)
class Case:
    """One problem, as tokens."""

    task: Task
    seed: int  #: that the problems of the task were drawn with
    index: int  #: of the problem among them
    problem: Problem
    prompt: tuple[int, ...]  #: token ids

    @property
    def key(self) -> CaseKey:
        """Task, seed, index."""
        return self.task.name, self.seed, self.index

    @property
    def sampling_seed(self) -> int:
        """Of the random numbers in decoding; differs from problem to problem."""
        return self.seed + self.index


def draw_case(task: Task, seed: int, index: int, tokenizer: PreTrainedTokenizerBase, *, raw: bool = False) -> Case:
    """Problem ``index`` (from 0) of those that ``seed`` draws."""
    return draw_cases(task, seed, index + 1, tokenizer, raw=raw)[index]


def draw_cases(
    task: Task, seed: int, count: int, tokenizer: PreTrainedTokenizerBase, *, raw: bool = False
) -> tuple[Case, ...]:
    """The first ``count`` held-out problems that ``seed`` draws."""
    return tuple(
        Case(
            task=task, seed=seed, index=index, problem=problem, prompt=encode_prompt(tokenizer, problem.prompt, raw=raw)
        )
        for index, problem in enumerate(task.generate(count, seed))
    )


def all_cases(experiment: Experiment, tokenizer: PreTrainedTokenizerBase) -> tuple[Case, ...]:
    """Every problem of every task and seed."""
    return tuple(
        case
        for task in experiment.tasks
        for seed in experiment.seeds
        for case in draw_cases(task, seed, experiment.problems, tokenizer, raw=experiment.raw_prompts)
    )
