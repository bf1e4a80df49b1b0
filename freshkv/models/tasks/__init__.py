"""Tasks: small, checkable problems in readable text, for the bundled models and for comparing policies."""

from freshkv.models.tasks.base import Problem, Task
from freshkv.models.tasks.registry import tasks
from freshkv.models.tasks.sudoku import Sudoku
from freshkv.models.tasks.sums import Sums
from freshkv.models.tasks.weave import Weave

__all__ = ["Problem", "Sudoku", "Sums", "Task", "Weave", "tasks"]
