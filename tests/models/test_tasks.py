"""Tasks: what they draw is right, checkable, the same everywhere, and never met in training."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshkv.core.errors import InputError
from freshkv.core.plugins import PluginProblem, Plugins, hookimpl, inspect_plugin
from freshkv.core.registry import Known, collect
from freshkv.models.tasks import Problem, Sudoku, Sums, Task, Weave, tasks
from freshkv.models.tasks.registry import TASKS
from freshkv.models.tasks.sudoku import agrees, all_solutions, boards_of

every_task = pytest.mark.parametrize("task", [Sums(), Sudoku(), Weave()], ids=lambda task: task.name)
seeds = st.integers(0, 2**32)


def test_the_built_in_tasks_are_known_by_name():
    assert tasks().items() >= {"sums": Sums, "sudoku": Sudoku, "weave": Weave}.items()


class Echo(Task):
    """The smallest task: say the first digit again."""

    name = "echo"
    gen_length = 1
    words = ("echo", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

    def draw(self, randomness: Random, *, held_out: bool) -> Problem:
        digits = [str(randomness.randrange(10)) for _ in range(5)]
        return Problem(" ".join(["echo", *digits]), digits[0])


def test_a_task_is_a_name_a_length_words_and_a_way_to_draw():
    problems = Echo().generate(20)
    assert len(problems) == 20
    assert all(Echo().check(problem, problem.answer) for problem in problems)


class Plugin:
    """A plugin that adds ``classes``."""

    def __init__(self, *classes: object) -> None:
        self.classes = classes

    @hookimpl
    def freshkv_tasks(self) -> Iterable[object]:
        return self.classes


def tasks_with(*classes: object) -> Known[Task]:
    plugin = inspect_plugin(Plugin(*classes), "toys", "toys 1.0")
    assert not isinstance(plugin, PluginProblem)
    return collect(TASKS, Plugins((plugin,)))


def test_a_plugin_adds_a_task():
    assert tasks_with(Echo).classes["echo"] is Echo


class Clash(Echo):
    name = "sums"


class Halfway(Task):
    name = "halfway"


@pytest.mark.parametrize(
    ("given", "reason"),
    [(str, "not a subclass of Task"), (Halfway, "no method draw"), (Clash, "'sums' is taken by Sums")],
)
def test_a_task_that_cannot_be_used_is_left_out_with_the_reason(given: object, reason: str):
    found = tasks_with(given, Echo)
    assert set(found.classes) >= {"sums", "sudoku", "weave", "echo"}
    assert given not in found.classes.values()
    (problem,) = found.problems
    assert reason in str(problem)


@every_task
@given(seed=seeds, held_out=st.booleans())
def test_an_answer_passes_its_own_check_and_has_the_promised_length(task: Task, seed: int, held_out: bool):
    (problem,) = task.generate(1, seed, held_out=held_out)
    assert task.check(problem, problem.answer)
    assert task.check(problem, f"  {problem.answer}\n")
    assert len(problem.answer.split()) == task.gen_length


@every_task
@given(seed=seeds)
def test_prompts_and_answers_are_made_of_the_declared_words(task: Task, seed: int):
    (problem,) = task.generate(1, seed)
    assert problem.prompt.split()[0] == task.name
    assert set(f"{problem.prompt} {problem.answer}".split()) <= set(task.words)
    assert len(set(task.words)) == len(task.words)


@every_task
@given(seed=seeds, data=st.data())
def test_one_wrong_word_fails_the_check(task: Task, seed: int, data: st.DataObject):
    (problem,) = task.generate(1, seed)
    words = problem.answer.split()
    place = data.draw(st.integers(0, task.gen_length - 1))
    words[place] = data.draw(st.sampled_from([word for word in task.words if word != words[place]]))
    assert not task.check(problem, " ".join(words))


@every_task
def test_an_answer_of_another_length_fails_the_check(task: Task):
    (problem,) = task.generate(1)
    words = problem.answer.split()
    for response in ("", " ".join(words[:-1]), " ".join([*words, words[0]])):
        assert not task.check(problem, response)


@every_task
@given(seed=seeds)
def test_problems_depend_on_the_seed_alone(task: Task, seed: int):
    problems = task.generate(4, seed)
    assert type(task)().generate(4, seed) == problems
    assert task.generate(2, seed) == problems[:2]
    assert task.generate(4, seed + 1) != problems


@every_task
def test_held_out_problems_are_never_drawn_for_training(task: Task):
    held_out = {problem.prompt for problem in task.generate(200, seed=1)}
    training = {problem.prompt for seed in (0, 1) for problem in task.generate(200, seed, held_out=False)}
    assert len(held_out) == 200
    assert not held_out & training
    assert all(task.is_held_out(problem) for problem in task.generate(50, seed=2))
    assert not any(task.is_held_out(problem) for problem in task.generate(50, seed=2, held_out=False))


@every_task
def test_problems_are_the_same_on_every_machine(task: Task):
    first_words = {
        "sums": "3 9 1 8 4 0 1 4",
        "sudoku": "2 4 3 1 3 1 2 4",
        "weave": "8 0 1 3 9 1 8 4",
    }
    (problem,) = task.generate(1, seed=0)
    assert problem.answer.startswith(first_words[task.name])


def test_a_negative_count_is_refused():
    with pytest.raises(InputError, match="count=-1"):
        Sums().generate(-1)


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt"):
        Problem("", "1")


@given(seed=seeds)
def test_sums_add_their_digits_in_turn(seed: int):
    (problem,) = Sums().generate(1, seed)
    terms, starts = (list(map(int, part.split())) for part in problem.prompt.removeprefix("sums ").split(" = "))
    answer = list(map(int, problem.answer.split()))
    for which in (0, 1):
        total = starts[which]
        for term, number in zip(terms[which::2], answer[which::2], strict=True):
            total += term
            assert number == total % 10


@given(seed=seeds)
def test_weave_adds_two_earlier_numbers(seed: int):
    (problem,) = Weave().generate(1, seed)
    numbers = list(map(int, f"{problem.prompt} {problem.answer}".split()[1:]))
    assert all(numbers[i] == (numbers[i - 16] + numbers[i - 17]) % 10 for i in range(17, len(numbers)))


def test_there_are_288_filled_boards():
    assert len(all_solutions()) == 288


@given(seed=seeds, held_out=st.booleans())
def test_every_board_has_exactly_one_solution(seed: int, held_out: bool):
    (problem,) = Sudoku().generate(1, seed, held_out=held_out)
    answer = "".join(problem.answer.split())
    for index, clues in enumerate(boards_of(problem)):
        assert 4 <= sum(clue != "." for clue in clues) <= 7
        solutions = [board for board in all_solutions() if agrees(clues, board)]
        assert solutions == [answer[16 * index : 16 * index + 16]]


def test_held_out_boards_are_never_drawn_for_training():
    held_out, training = (
        {clues for problem in Sudoku().generate(200, held_out=half) for clues in boards_of(problem)}
        for half in (True, False)
    )
    assert not held_out & training


def test_a_board_that_breaks_a_rule_or_a_clue_fails():
    (problem,) = Sudoku().generate(1)
    other = Sudoku().generate(1, seed=1)[0].answer
    assert not Sudoku().check(problem, other)
    assert not Sudoku().check(problem, " ".join("1" * 64))
