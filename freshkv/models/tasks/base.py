"""What a task is: it writes problems as text, and checks answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from hashlib import blake2b
from random import Random
from typing import ClassVar

from attrs import field, frozen
from attrs.validators import matches_re

from freshkv.core.errors import InputError

#: one problem in this many is held out: no training run ever sees it
HELD_OUT_SHARE = 8
NOT_EMPTY = r"(?s).+"


@frozen
class Problem:
    """A prompt and its answer, both readable text: words separated by single spaces."""

    prompt: str = field(validator=matches_re(NOT_EMPTY))
    answer: str = field(validator=matches_re(NOT_EMPTY))


class Task(ABC):
    """Problems of one kind: subclass, name it, write ``draw``, and ``generate`` and ``check`` follow.

    Every answer of a task has the same number of words, ``gen_length``, and a word is a token of the bundled models.
    """

    name: ClassVar[str]
    gen_length: ClassVar[int]  #: tokens of every answer
    words: ClassVar[tuple[str, ...]]  #: every word that prompts and answers are made of

    @abstractmethod
    def draw(self, randomness: Random, *, held_out: bool) -> Problem:
        """One problem. Tasks whose problems are made of parts take all parts from the half that ``held_out`` names."""

    def generate(self, count: int, seed: int = 0, *, held_out: bool = True) -> list[Problem]:
        """``count`` problems, the same ones for the same ``seed``.

        Held-out problems and training problems never meet, whatever the seeds: a hash of the prompt decides which half
        it belongs to. Raises InputError for a negative ``count``.
        """
        if count < 0:
            raise InputError(f"{type(self).__name__}.generate got count={count}; expected 0 or more.")
        randomness = Random(f"{self.name} {seed} {held_out}")  # text is hashed the same way on every machine
        problems: list[Problem] = []
        while len(problems) < count:
            problem = self.draw(randomness, held_out=held_out)
            if self.is_held_out(problem) == held_out:
                problems.append(problem)
        return problems

    def is_held_out(self, problem: Problem) -> bool:
        """Whether ``problem`` is kept from training."""
        return is_held_out(problem.prompt)

    def check(self, problem: Problem, response: str) -> bool:
        """Whether ``response`` solves ``problem``; white space does not count."""
        return response.split() == problem.answer.split()


def is_held_out(text: str) -> bool:
    """Whether a hash of ``text`` puts it among the held-out problems."""
    return blake2b(text.encode(), digest_size=2).digest()[0] % HELD_OUT_SHARE == 0
