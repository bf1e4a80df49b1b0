"""An evaluation: tasks one after the other with one model, through lm-eval, results on disk after each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from attrs import field, frozen

from freshkv.compare.provenance import hash_model
from freshkv.core.errors import InputError
from freshkv.evaluation.identity import key_of
from freshkv.evaluation.model_args import read_batch_size
from freshkv.evaluation.processes import Processes
from freshkv.evaluation.requirements import require_harness
from freshkv.evaluation.results import EvaluationFile, TaskResult
from freshkv.evaluation.session import load_subject
from freshkv.evaluation.task_settings import TaskSettings

#: what the package that executes code for lm-eval wants to be told
CODE_PERMISSION = "HF_ALLOW_CODE_EVAL"

OnMessage = Callable[[str], None]


@frozen(kw_only=True)
class Evaluation:
    """Tasks with their settings, and where they run."""

    model: str  #: as ``freshkv.load`` takes it
    settings: tuple[TaskSettings, ...] = field(converter=tuple)
    #: slots, the most sequences in a forward pass; "auto": planned from the memory that is free
    batch_size: int | Literal["auto"] = field(default=1, converter=read_batch_size)
    limit: int | None = None  #: problems of each task; None: all
    include_path: Path | None = None  #: a folder of task files, besides lm-eval's own
    output: Path | None = None  #: folder; None: one of its own under results/
    max_length: int | None = None
    mc_samples: int = 128
    check_greedy: bool = True
    allow_code: bool = False  #: tasks may execute what the model writes
    dtype: str = "auto"
    device: str = "cpu"
    tensor_parallel: bool = False  #: all processes of the launcher hold the model together
    threads: int | None = None

    def __attrs_post_init__(self) -> None:
        if not self.settings:
            raise InputError("An evaluation needs at least one task.")
        for settings in self.settings:
            self.model_arguments(settings)
        self.check_code([settings.task for settings in self.settings if settings.runs_code])

    def check_code(self, tasks: Sequence[str]) -> None:
        """Raise InputError if there are ``tasks``, which execute code, and that is not allowed."""
        if tasks and not self.allow_code:
            raise InputError(
                f"{', '.join(tasks)}: these tasks execute code that the model writes, on this machine. Run them in a "
                "container or another place where it can do no harm, with --confirm-run-unsafe-code."
            )

    def model_arguments(self, settings: TaskSettings) -> dict[str, Any]:
        """Arguments of the model for one task, checked."""
        options = settings.model_options(
            pretrained=self.model,
            batch_size=self.batch_size,
            max_length=self.max_length,
            mc_samples=self.mc_samples,
            check_greedy=self.check_greedy,
            responses=self.folder / "responses",
            dtype=self.dtype,
            device=self.device,
            tensor_parallel=self.tensor_parallel,
            threads=self.threads,
        )
        return options.to_dict()

    @property
    def folder(self) -> Path:
        """Where results go; the same evaluation finds it again."""
        if self.output is not None:
            return self.output
        facts = [self.model, [settings.to_dict() for settings in self.settings], self.limit, self.batch_size]
        return Path("results") / f"eval-{Path(self.model).name}-{key_of(facts)[:8]}"


def run_evaluation(
    evaluation: Evaluation, processes: Processes | None = None, on_message: OnMessage | None = None
) -> list[TaskResult]:
    """Run what is left, and return the results of every task; on processes other than the first, none.

    Tasks and their data are read before the model. Raises InputError for a task that lm-eval does not have or cannot
    read, or that executes code without permission; ResultsError for a folder that holds another evaluation; and what
    loading the model raises.
    """
    require_harness()
    say: OnMessage = (lambda message: None) if on_message is None else on_message
    with _permission_to_run_code(evaluation.allow_code):
        from freshkv.evaluation.tasks import find_tasks

        if processes is None:
            processes = Processes.join(tensor_parallel=evaluation.tensor_parallel)
        names = [settings.harness_task for settings in evaluation.settings]
        manager, unsafe = find_tasks(names, evaluation.include_path, say)
        evaluation.check_code(unsafe)
        identity = processes.from_first(lambda: hash_model(evaluation.model))
        facts = {"model": evaluation.model, "model_hash": identity, "limit": evaluation.limit}
        file = EvaluationFile(evaluation.folder / "results.json", facts)
        file.check(evaluation.settings)
        options = evaluation.settings[0].model_options(
            pretrained=evaluation.model,
            dtype=evaluation.dtype,
            device=evaluation.device,
            tensor_parallel=evaluation.tensor_parallel,
        )
        subject = load_subject(options, processes)
        loaded = {"subject": subject, "processes": processes, "identity": identity}
        results = []
        for settings in evaluation.settings:
            say(f"{settings.task}: {settings.policy} with {settings.decoder}")
            result = _run_task(evaluation, settings, manager, loaded)
            if result is not None:
                file.add(result)
                results.append(result)
    return results


def _run_task(
    evaluation: Evaluation, settings: TaskSettings, manager: Any, loaded: dict[str, Any]
) -> TaskResult | None:
    from lm_eval import simple_evaluate

    from freshkv.evaluation.harness import FreshkvLM

    model = FreshkvLM(**loaded, **evaluation.model_arguments(settings))
    outcome = simple_evaluate(
        model=model,
        tasks=[settings.harness_task],
        num_fewshot=settings.few_shot,
        limit=evaluation.limit,
        task_manager=manager,
        apply_chat_template=settings.chat,
        fewshot_as_multiturn=settings.chat and settings.multi_turn,
        confirm_run_unsafe_code=evaluation.allow_code,
        random_seed=settings.seed,
        numpy_random_seed=settings.seed,
        torch_random_seed=settings.seed,
        fewshot_random_seed=settings.seed,
    )
    if outcome is None or not model.processes.is_first:
        return None
    return TaskResult(
        settings=settings,
        scores=outcome["results"],
        problems={name: counts["effective"] for name, counts in outcome["n-samples"].items()},
        generation=model.totals,
        model=model.get_model_info()["freshkv"],
        samples=outcome.get("samples", {}),
        versions={"lm_eval": str(outcome.get("lm_eval_version")), "tasks": outcome.get("versions", {})},
    )


@contextmanager
def _permission_to_run_code(allowed: bool) -> Iterator[None]:
    """Pass on what the user said; the package asks for a variable of the environment."""
    before = os.environ.get(CODE_PERMISSION)
    if allowed:
        os.environ[CODE_PERMISSION] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CODE_PERMISSION, None)
        else:
            os.environ[CODE_PERMISSION] = before


def plain_settings(task: str, **values: Any) -> TaskSettings:
    """Settings of a task of lm-eval or one's own, without a preset; None leaves a value to the task."""
    given = {name: value for name, value in values.items() if value is not None}
    return TaskSettings(task=task, harness_task=task, **given)
