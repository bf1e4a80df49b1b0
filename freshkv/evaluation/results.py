"""What an evaluation leaves on disk: scores beside speed, and everything needed to run it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen

from freshkv.core.errors import ResultsError
from freshkv.evaluation.metrics import GenerationTotals
from freshkv.evaluation.task_settings import TaskSettings

FORMAT = "freshkv-evaluation-1"


@frozen(kw_only=True, eq=False)
class TaskResult:
    """One task, done."""

    settings: TaskSettings
    scores: Mapping[str, Mapping[str, Any]]  #: lm-eval's, by task
    problems: Mapping[str, int]  #: evaluated, by task
    generation: GenerationTotals  #: of all processes
    model: Mapping[str, Any]  #: options and environment
    samples: Mapping[str, Any] = field(factory=dict)  #: lm-eval's record of every problem, by task
    versions: Mapping[str, Any] = field(factory=dict)

    @property
    def metrics(self) -> list[tuple[str, str, float, float | None]]:
        """Task, metric, value, and its standard error where lm-eval gives one."""
        found = []
        for task, scores in self.scores.items():
            for name, value in scores.items():
                metric, _, filtered = name.partition(",")
                if isinstance(value, (int, float)) and not metric.endswith("_stderr") and filtered:
                    error = scores.get(f"{metric}_stderr,{filtered}")
                    label = metric if filtered == "none" else f"{metric} ({filtered})"
                    found.append((task, label, float(value), error if isinstance(error, float) else None))
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without samples."""
        return {
            "settings": self.settings.to_dict(),
            "scores": {task: dict(scores) for task, scores in self.scores.items()},
            "problems": dict(self.problems),
            "generation": self.generation.to_dict(),
            "model": dict(self.model),
            "versions": dict(self.versions),
        }


@frozen(eq=False)
class EvaluationFile:
    """``results.json``, and a file of samples for each task beside it. Tasks that an earlier run left are kept."""

    path: Path
    facts: Mapping[str, Any]

    def check(self, settings: Sequence[TaskSettings]) -> None:
        """Raise ResultsError if the file has results that ``settings`` would replace with others."""
        there = self._read()
        if not there:
            return
        differences = [name for name, value in self.facts.items() if there.get(name) != value]
        for each in settings:
            old = there.get("tasks", {}).get(each.task)
            if old is not None:
                new, old = each.to_dict(), old["settings"]
                differences += [f"{name} of {each.task}" for name in new if old.get(name) != new[name]]
        if differences:
            raise ResultsError(
                f"{self.path} has results of another evaluation: {', '.join(differences)} differ. "
                "Name another --output."
            )

    def add(self, result: TaskResult) -> None:
        """Write ``result``. The file is whole at any time. Raises ResultsError."""
        tasks = {**self._read().get("tasks", {}), result.settings.task: result.to_dict()}
        created = datetime.now(UTC).isoformat(timespec="seconds")
        whole = {"format": FORMAT, "written": created, **self.facts, "tasks": tasks}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for task, samples in result.samples.items():
                self._replace(self.path.with_name(f"samples-{task.replace('/', '-')}.jsonl"), map(_line, samples))
            self._replace(self.path, [json.dumps(whole, indent=2, ensure_ascii=False, default=str)])
        except OSError as error:
            raise ResultsError(
                f"Cannot write to {self.path.parent}: {error.strerror}. Answers that were written before are kept; the "
                "same command continues from there."
            ) from error

    def _read(self) -> dict[str, Any]:
        if not self.path.is_file():
            return {}
        try:
            found = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ResultsError(f"{self.path} cannot be read ({error}). Name another --output.") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ResultsError(f"{self.path} is not the result of an evaluation. Name another --output.")
        return found

    @staticmethod
    def _replace(path: Path, lines: Any) -> None:
        partial = path.with_name(path.name + ".partial")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)


def _line(sample: Any) -> str:
    return json.dumps(sample, ensure_ascii=False, default=str)
