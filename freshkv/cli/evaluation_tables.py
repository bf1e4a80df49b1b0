"""Tables of ``freshkv eval``: presets, plans, results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from freshkv.cli.table import fold_spec

if TYPE_CHECKING:
    from freshkv.evaluation.plan import Plan
    from freshkv.evaluation.preset import Preset
    from freshkv.evaluation.results import TaskResult
    from freshkv.evaluation.task_settings import TaskSettings

NOTHING = "-"
SPEC_WIDTH = 20  #: terminal columns


def preset_tables(presets: Sequence[Preset]) -> Iterable[RenderableType]:
    """What each preset is, and its settings without a cache."""
    for preset in presets:
        yield Text(f"\n{preset.name}", style="bold")
        yield Text(f"{preset.about}\n{preset.paper}; {preset.source}")
        for difference in preset.differences:
            yield Text(f"Not as published: {difference}", style="dim")
        table = _table("task", "model", "lm-eval task", "few-shot", "tokens", "block", "chat", "top_p")
        for task in preset.tasks:
            for variant in preset.variants:
                settings = preset.settings(task, variant, "none")
                table.add_row(
                    task,
                    variant,
                    settings.harness_task,
                    _text(settings.few_shot),
                    _text(settings.gen_length),
                    "one" if settings.block_length is None else str(settings.block_length),
                    "yes" if settings.chat else "no",
                    _text(settings.top_p),
                )
        yield table


def plan_table(
    model: str, parameters: int, plans: Sequence[tuple[TaskSettings, Plan]], source: str
) -> Iterable[RenderableType]:
    """What evaluations would take, and what that assumes."""
    inputs = plans[0][1].inputs
    yield Text(
        f"{model}: {parameters / 1e9:.2f} billion weights in {inputs.dtype}, batches of {inputs.batch_size}, "
        f"prompts of {inputs.prompt_tokens} tokens, devices: {inputs.devices}"
        f"{', which hold the model together' * inputs.tensor_parallel}; time of a step: {source}"
    )
    table = _table(
        "task", "policy", "prob-\nlems", "tokens", "ms a\nstep", "hours", "device-\nhours", "cost", "GB a\ndevice"
    )
    for settings, plan in plans:
        table.add_row(
            settings.task,
            fold_spec(settings.policy, SPEC_WIDTH),
            str(plan.inputs.problems),
            str(plan.inputs.gen_length),
            f"{1000 * plan.inputs.step_seconds:.1f}",
            f"{plan.hours:.2f}",
            f"{plan.device_hours:.1f}",
            f"{plan.cost:.2f}" if plan.inputs.price_per_hour > 0 else NOTHING,
            f"{plan.total_bytes / 1e9:.1f}",
        )
    yield table
    if len(plans) > 1:
        hours, cost = sum(plan.hours for _, plan in plans), sum(plan.cost for _, plan in plans)
        yield Text(f"Together {hours:.2f} hours" + (f", cost {cost:.2f}" if cost > 0 else ""))


def result_tables(results: Sequence[TaskResult]) -> Iterable[RenderableType]:
    """Scores, then speed."""
    scores = _table("task", "problems", "metric", "score", "standard error")
    for result in results:
        for task, metric, value, error in result.metrics:
            count = result.problems.get(task)
            scores.add_row(task, _text(count), metric, f"{value:.4f}", NOTHING if error is None else f"{error:.4f}")
    yield scores
    timed = [result for result in results if result.generation.answers > 0]
    if not timed:
        return
    columns = ("answer\ntokens", "tokens\n/s", "ms a\nforward", "for-\nwards", "tokens a\nforward", "rows")
    speed = _table("task", "policy", *columns)
    for result in timed:
        totals = result.generation
        speed.add_row(
            result.settings.task,
            fold_spec(result.settings.policy, SPEC_WIDTH),
            str(totals.answer_tokens),
            _text(totals.tokens_per_second, ".1f"),
            _text(totals.seconds_per_forward, ".1f", 1000.0),
            str(totals.forwards),
            _text(totals.tokens_per_forward, ".2f"),
            _text(totals.rows_share, ".0%"),
        )
    yield speed
    yield Text(
        "Totals over all answers. Answer tokens end before the end token or stop string; forwards count once for each "
        "sequence of a batch; rows: computed, as a share of what no cache would compute.",
        style="dim",
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(value: float | None, pattern: str = "", scale: float = 1) -> str:
    return NOTHING if value is None else format(value * scale if scale != 1 else value, pattern)
