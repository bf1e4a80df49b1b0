"""Four small sudoku boards."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import permutations, product
from random import Random
from typing import ClassVar

from freshkv.models.tasks.base import Problem, Task, is_held_out

BOARDS = 4
CELLS = 16
BLANK = "."
FEWEST_CLUES, MOST_CLUES = 4, 7


class Sudoku(Task):
    """``sudoku . 1 . . 3 ... =``: fill four boards of 4 x 4 cells, row by row; each has exactly one solution.

    Every row, every column and every quarter of a board holds 1, 2, 3 and 4; 4 to 7 cells are given. The order in
    which cells can be deduced differs from board to board.
    """

    name: ClassVar[str] = "sudoku"
    gen_length: ClassVar[int] = BOARDS * CELLS
    words: ClassVar[tuple[str, ...]] = ("sudoku", "=", BLANK, "1", "2", "3", "4")

    def draw(self, randomness: Random, *, held_out: bool) -> Problem:
        """Boards from one half only, so that no held-out board occurs in training, in whatever company."""
        boards = [draw_board(randomness, held_out=held_out) for _ in range(BOARDS)]
        clues, solutions = (" ".join(" ".join(part) for part in parts) for parts in zip(*boards, strict=True))
        return Problem(f"sudoku {clues} =", solutions)

    def is_held_out(self, problem: Problem) -> bool:
        """Whether the boards of ``problem`` are kept from training; ``draw`` takes all four from one half."""
        return all(is_held_out(clues) for clues in boards_of(problem))

    def check(self, problem: Problem, response: str) -> bool:
        """Whether ``response`` keeps the clues and the rules, on every board."""
        answer = "".join(response.split())
        if len(answer) != self.gen_length:
            return False
        boards = (answer[start : start + CELLS] for start in range(0, self.gen_length, CELLS))
        return all(
            board in all_solutions() and agrees(clues, board)
            for clues, board in zip(boards_of(problem), boards, strict=True)
        )


def boards_of(problem: Problem) -> list[str]:
    """The clues of each board, 16 characters, a dot where none is given."""
    cells = "".join(problem.prompt.split()[1:-1])
    return [cells[start : start + CELLS] for start in range(0, len(cells), CELLS)]


def agrees(clues: str, board: str) -> bool:
    """Whether ``board`` has every clue where it is given."""
    return all(clue in (BLANK, cell) for clue, cell in zip(clues, board, strict=True))


@cache
def all_solutions() -> frozenset[str]:
    """The 288 filled boards."""
    rows = ["".join(row) for row in permutations("1234")]
    bands = [upper + lower for upper, lower in product(rows, rows) if all_differ(quarters(upper + lower))]
    boards = (upper + lower for upper, lower in product(bands, bands))
    return frozenset(board for board in boards if all_differ(board[column::4] for column in range(4)))


def quarters(band: str) -> tuple[str, str]:
    """The two quarters of two rows, four cells each."""
    return band[0:2] + band[4:6], band[2:4] + band[6:8]


def all_differ(groups: Iterable[str]) -> bool:
    """Whether every group of four cells holds four different numbers."""
    return all(len(set(group)) == 4 for group in groups)


def solution_bits(clues: str) -> int:
    """The solutions that agree with ``clues``, one bit each, as one whole number: sets as numbers intersect fast."""
    bits = everything = (1 << len(all_solutions())) - 1
    for cell, clue in enumerate(clues):
        if clue != BLANK:
            bits &= _bits_with(cell, clue)
    return bits & everything


@cache
def _ordered_solutions() -> tuple[str, ...]:
    return tuple(sorted(all_solutions()))


@cache
def _bits_with(cell: int, number: str) -> int:
    return sum(1 << index for index, board in enumerate(_ordered_solutions()) if board[cell] == number)


def draw_board(randomness: Random, *, held_out: bool) -> tuple[str, str]:
    """Clues with exactly one solution, and that solution, from the half that ``held_out`` names.

    Held-out boards have every number of clues equally often. In training, boards with many clues are commoner: they
    more often have one solution, and they are easier to learn from.
    """
    clue_count = randomness.randint(FEWEST_CLUES, MOST_CLUES) if held_out else None
    while True:
        solution = randomness.choice(_ordered_solutions())
        given_count = clue_count or randomness.randint(FEWEST_CLUES, MOST_CLUES)
        given = set(randomness.sample(range(CELLS), given_count))
        clues = "".join(cell if index in given else BLANK for index, cell in enumerate(solution))
        if solution_bits(clues).bit_count() == 1 and is_held_out(clues) == held_out:
            return clues, solution
