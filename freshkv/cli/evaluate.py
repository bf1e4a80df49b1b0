"""``freshkv eval``: benchmarks through lm-evaluation-harness, with published settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freshkv.cli import options
from freshkv.cli.console import output, say
from freshkv.cli.evaluation_tables import plan_table, preset_tables, result_tables
from freshkv.cli.failures import INTERRUPTED, Debug, reports_errors
from freshkv.cli.loading import patient
from freshkv.core.errors import InputError

if TYPE_CHECKING:
    from freshkv.evaluation.task_settings import TaskSettings

HELP = (
    "Evaluate a model with a cache policy on benchmarks, through lm-evaluation-harness.\n\n"
    "With --preset, few-shot counts, lengths, blocks and the options of every policy are those of a paper; options "
    "given here win over them. Answers are written as they come: stop at any time, and the same command continues. "
    "Under accelerate launch the problems are shared out among its processes; with --tensor-parallel they hold one "
    "model together.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv eval --list\n"
    "  freshkv eval --preset d2cache-paper --task gsm8k --model GSAI-ML/LLaDA-8B-Instruct --policy d2cache\n"
    "  freshkv eval --preset d2cache-paper --task gsm8k --policy d2cache --plan --devices 8\n"
    "  freshkv eval --task my-task --include-path my-tasks --policy dual\n"
)
TASK = "What is asked"
PLAN = "Planning"
#: an official checkpoint: a plan needs its sizes only
PLANNED_MODEL = "GSAI-ML/LLaDA-8B-Instruct"


@reports_errors
def evaluate(
    model: Annotated[
        str | None, typer.Option("--model", help="A bundled model, a folder, or a hub id. Left out: tiny-llada.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", help="A task of the preset, of lm-eval or of your own; repeat it for several."),
    ] = None,
    policy: Annotated[str, typer.Option("--policy", help="A policy: name or name:field=value,...")] = "none",
    decoder: Annotated[
        str | None, typer.Option("--decoder", help="A decoder, likewise. Left out: the preset's, else confidence.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Published settings; --list shows them.")] = None,
    variant: Annotated[
        str | None,
        typer.Option("--variant", help="Which of the preset's models this is. Left out: by its name."),
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the presets and where they come from.")] = False,
    output_folder: Annotated[
        Path | None, typer.Option("--output", help="Folder for results. Left out: one of its own under results/.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Problems of each task.", rich_help_panel=TASK)
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option("--include-path", help="A folder of task files of your own.", rich_help_panel=TASK)
    ] = None,
    few_shot: Annotated[
        int | None, typer.Option("--few-shot", min=0, help="Examples in the prompt.", rich_help_panel=TASK)
    ] = None,
    chat: Annotated[
        bool | None, typer.Option("--chat/--no-chat", help="Use the chat template.", rich_help_panel=TASK)
    ] = None,
    multi_turn: Annotated[
        bool | None,
        typer.Option("--multi-turn/--single-turn", help="Examples of a chat as turns.", rich_help_panel=TASK),
    ] = None,
    use_until: Annotated[
        bool | None,
        typer.Option("--until/--no-until", help="Cut answers at the task's stop strings.", rich_help_panel=TASK),
    ] = None,
    confirm_run_unsafe_code: Annotated[
        bool,
        typer.Option(
            "--confirm-run-unsafe-code", help="Execute what the model writes (humaneval, mbpp).", rich_help_panel=TASK
        ),
    ] = False,
    gen_length: options.GenLength = None,
    block_length: Annotated[
        int | None,
        typer.Option(
            "--block-length",
            help="Tokens decoded before the next block opens; equal to the length: one block. Left out: the preset's, "
            "else one block.",
            rich_help_panel=options.RUN,
        ),
    ] = None,
    batch_size: Annotated[
        str,
        typer.Option(
            "--batch-size",
            help="Sequences decoded together, at most; auto: as many as the memory holds.",
            rich_help_panel=options.RUN,
        ),
    ] = "1",
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="0 takes the most probable token.", rich_help_panel=options.RUN),
    ] = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Of all random numbers.", rich_help_panel=options.RUN)
    ] = None,
    stop_at_eos: Annotated[
        bool | None,
        typer.Option("--stop-at-eos/--full-length", help="End a response early.", rich_help_panel=options.RUN),
    ] = None,
    mc_samples: Annotated[
        int, typer.Option("--mc-samples", min=1, help="Samples of a log-likelihood.", rich_help_panel=options.RUN)
    ] = 128,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    tensor_parallel: options.TensorParallel = False,
    threads: options.Threads = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.", rich_help_panel=PLAN)] = False,
    step_ms: Annotated[
        float | None,
        typer.Option("--step-ms", help="Milliseconds of a forward pass, as a run shows them.", rich_help_panel=PLAN),
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=1, help="How many.", rich_help_panel=PLAN)] = 1,
    price: Annotated[
        float, typer.Option("--price", min=0.0, help="Of a device for an hour.", rich_help_panel=PLAN)
    ] = 0.0,
    prompt_tokens: Annotated[
        int, typer.Option("--prompt-tokens", min=1, help="Of the longest prompts.", rich_help_panel=PLAN)
    ] = 1024,
    problems: Annotated[
        int | None, typer.Option("--problems", min=1, help="Of each task.", rich_help_panel=PLAN)
    ] = None,
    debug: Debug = False,
) -> None:
    """List, plan, or run."""
    if show_list:
        _show_presets()
        return
    if not task:
        raise InputError("--task is missing. freshkv eval --list shows the tasks of the presets.")
    overrides = {
        "decoder": decoder,
        "few_shot": few_shot,
        "gen_length": gen_length,
        "block_length": block_length,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "stop_at_eos": stop_at_eos,
        "use_until": use_until,
        "chat": chat,
        "multi_turn": multi_turn,
    }
    from freshkv.evaluation.model_args import read_batch_size

    given = {name: value for name, value in overrides.items() if value is not None}
    name = (PLANNED_MODEL if plan else "tiny-llada") if model is None else model
    with patient():
        settings = [_settings(each, policy, preset, variant, name, given) for each in task]
        if plan:
            assumed: dict[str, Any] = {"devices": devices, "price_per_hour": price, "prompt_tokens": prompt_tokens}
            assumed |= {"problems": problems, "tensor_parallel": tensor_parallel}
            assumed["batch_size"] = read_batch_size(batch_size)
            _show_plan(name, variant, settings, step_ms, assumed)
            return
        _run(
            model=name,
            settings=settings,
            batch_size=read_batch_size(batch_size),
            limit=limit,
            include_path=include_path,
            output=output_folder,
            mc_samples=mc_samples,
            allow_code=confirm_run_unsafe_code,
            dtype=dtype,
            device=device,
            tensor_parallel=tensor_parallel,
            threads=threads,
        )


def _settings(
    task: str, policy: str, preset: str | None, variant: str | None, model: str, given: dict[str, Any]
) -> TaskSettings:
    from freshkv.evaluation.evaluation import plain_settings
    from freshkv.evaluation.preset import find_preset, variant_of

    if preset is None:
        return plain_settings(task, policy=policy, **given)
    kind = variant_of(model) if variant is None else variant
    return find_preset(preset).settings(task, kind, policy, given)


def _show_presets() -> None:
    from freshkv.evaluation.preset import presets

    console = output()
    for part in preset_tables(list(presets().values())):
        console.print(part)


def _show_plan(
    model: str, variant: str | None, settings: list[TaskSettings], step_ms: float | None, assumed: dict[str, Any]
) -> None:
    from freshkv.evaluation.model_args import AUTO
    from freshkv.evaluation.plan import inputs_of, plan_evaluation, published_device, published_step_seconds
    from freshkv.evaluation.preset import variant_of
    from freshkv.evaluation.shapes import ModelShape

    if assumed["batch_size"] == AUTO:
        raise InputError("--plan says what a batch takes: give its size as a number, --batch-size 8.")
    if assumed["tensor_parallel"] and step_ms is None:
        raise InputError("Published times of a step are of one device; with --tensor-parallel give yours: --step-ms.")
    shape, plans = ModelShape.of(model), []
    for each in settings:
        seconds = None if step_ms is None else step_ms / 1000
        if seconds is None:
            kind = variant_of(model) if variant is None else variant
            seconds = published_step_seconds(kind, each.task, each.policy)
        if seconds is None:
            raise InputError(
                f"No published time of a step is known for {each.policy} on {each.task} with {model}. Measure it with "
                "freshkv eval --limit 8, which shows the time of a forward pass, and give it as --step-ms."
            )
        plans.append((each, plan_evaluation(shape, each.policy, inputs_of(each, seconds, **assumed))))
    source = f"published, {published_device()}, batch 1" if step_ms is None else "yours"
    for part in plan_table(model, shape.parameters, plans, source):
        output().print(part)


def _run(**fields: Any) -> None:
    from freshkv.evaluation.evaluation import Evaluation, run_evaluation
    from freshkv.evaluation.processes import Processes
    from freshkv.evaluation.requirements import require_harness

    evaluation = Evaluation(**fields)
    require_harness()
    processes = Processes.join(tensor_parallel=evaluation.tensor_parallel)
    try:
        results = run_evaluation(evaluation, processes, say if processes.is_first else None)
    except KeyboardInterrupt as error:
        if processes.is_first:
            say(f"Stopped. Answers are kept in {evaluation.folder}; the same command continues from there.")
        raise typer.Exit(INTERRUPTED) from error
    if processes.is_first:
        for part in result_tables(results):
            output().print(part)
        output().print(f"\nResults: {evaluation.folder / 'results.json'}", markup=False, soft_wrap=True)
