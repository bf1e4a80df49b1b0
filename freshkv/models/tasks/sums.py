"""Two running sums, side by side."""

from __future__ import annotations

from random import Random
from typing import ClassVar

from freshkv.models.tasks.base import Problem, Task

DIGITS = tuple("0123456789")
TERMS = 64
#: number i of the answer adds to number i - CHAINS
CHAINS = 2


class Sums(Task):
    """``sums 3 1 4 ... = 5 8``: continue the two numbers at the end, adding the digits in turn, modulo ten.

    The first digit is added to the first number, the second to the second, the third to the first again. Each
    number of the answer needs the one two places before it, so its row must be refreshed once that one is known. Why
    two sums: in a model with shifted logits (Dream) the row that predicts a number is the row of the number before it,
    whose token the row knows without any cache, and one sum could be continued with every cached row out of date.
    """

    name: ClassVar[str] = "sums"
    gen_length: ClassVar[int] = TERMS
    words: ClassVar[tuple[str, ...]] = ("sums", "=", *DIGITS)

    def draw(self, randomness: Random, *, held_out: bool) -> Problem:
        """Digits below a limit that is drawn, too: small ones are easier to learn from. Held-out digits have none."""
        limit = 10 if held_out else randomness.choice((2, 3, 5, 10, 10, 10))
        terms = [randomness.randrange(limit) for _ in range(TERMS)]
        numbers = [randomness.randrange(10) for _ in range(CHAINS)]
        prompt = " ".join(map(str, ["sums", *terms, "=", *numbers]))
        for term in terms:
            numbers.append((numbers[-CHAINS] + term) % 10)
        return Problem(prompt, " ".join(map(str, numbers[CHAINS:])))
