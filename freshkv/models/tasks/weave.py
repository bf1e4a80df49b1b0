"""Rows of sixteen numbers, each woven from the row before."""

from __future__ import annotations

from random import Random
from typing import ClassVar

from freshkv.models.tasks.base import Problem, Task
from freshkv.models.tasks.sums import DIGITS

LAG = 16
ROWS = 4


class Weave(Task):
    """``weave 3 1 4 ...``: continue the numbers; each is the sum of those 16 and 17 places before it, modulo ten.

    All numbers of a block of 16 can be told at once, but only from the block before. Whichever of that block was
    committed last is still a mask in the cache unless its row is refreshed when the next block opens, so this task
    notices a missing refresh at block start, which the other two do not.
    """

    name: ClassVar[str] = "weave"
    gen_length: ClassVar[int] = ROWS * LAG
    words: ClassVar[tuple[str, ...]] = ("weave", *DIGITS)

    def draw(self, randomness: Random, *, held_out: bool) -> Problem:
        """The 17 numbers that all others follow from; some training problems have small ones, which are easier."""
        limit = 10 if held_out else randomness.choice((2, 3, 5, 10, 10, 10))
        numbers = [randomness.randrange(limit) for _ in range(LAG + 1)]
        prompt = " ".join(map(str, ["weave", *numbers]))
        for _ in range(self.gen_length):
            numbers.append((numbers[-LAG] + numbers[-LAG - 1]) % 10)
        return Problem(prompt, " ".join(map(str, numbers[LAG + 1 :])))
