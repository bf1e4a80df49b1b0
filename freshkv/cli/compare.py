"""``freshkv compare``: policies x decoders on tasks, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freshkv.cli import options
from freshkv.cli.console import output, say
from freshkv.cli.failures import FAILED, INTERRUPTED, Debug, reports_errors
from freshkv.cli.loading import patient
from freshkv.cli.progress import ProgressDisplay
from freshkv.cli.table import comparison_table, explain_columns

if TYPE_CHECKING:
    from freshkv.compare import Experiment, Results

HELP = (
    "Compare cache policies: accuracy and speed on the same prompts and seeds.\n\n"
    "Without options, the five policies solve the bundled tasks with a bundled model, offline, in about two minutes. "
    "The uncached run (none) is always added. Results are written as they come: stop at any time, and the same "
    "command continues.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv compare\n"
    "  freshkv compare --model tiny-dream --task weave --problems 100\n"
    "  freshkv compare --policy d2cache:current_k=16 --decoder threshold\n"
)


#: one token a step, and as many as are certain: some policies only show a loss with the second
DECODERS = ["confidence", "threshold"]


@reports_errors
def compare(
    model: options.Model = "tiny-llada",
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A task; repeat it for several. Left out: all.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", help="A policy, name or name:field=value,...; repeat it. Left out: the built-in five."
        ),
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option("--decoder", help="A decoder, likewise. Left out: confidence and threshold.")
    ] = None,
    problems: Annotated[int, typer.Option("--problems", help="Problems of each task, for each seed.")] = 20,
    seed: Annotated[
        list[int] | None, typer.Option("--seed", help="Draws problems and random numbers; repeat it for more problems.")
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", help="Results file, JSON Lines. Left out: a name of its own under results/."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Sequences decoded together.", rich_help_panel=options.RUN)
    ] = 1,
    gen_length: options.GenLength = None,
    block_length: options.BlockLength = 16,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    stop_at_eos: options.StopAtEos = False,
    raw: options.Raw = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    threads: options.Threads = None,
    debug: Debug = False,
) -> None:
    """Build the experiment, run what is left of it, and show the table."""
    with patient():
        experiment = _build(
            model=model,
            tasks=task,
            policies=policy,
            decoders=decoder or DECODERS,
            problems=problems,
            seeds=seed,
            gen_length=gen_length,
            block_length=block_length,
            batch_size=batch_size,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_at_eos=stop_at_eos,
            raw_prompts=raw,
            dtype=dtype,
            device=device,
            threads=threads,
        )
        results = _run(experiment, output_file)
    _show(results)
    if results.open_failures:
        raise typer.Exit(FAILED)


def _build(**fields: Any) -> Experiment:
    """The experiment; what was not given is left to its defaults."""
    from freshkv.compare import Experiment

    repeatable = ("tasks", "policies", "decoders", "seeds")
    return Experiment(**{name: value for name, value in fields.items() if value or name not in repeatable})


def _run(experiment: Experiment, path: Path | None) -> Results:
    from freshkv.compare import run_experiment

    display = ProgressDisplay()
    try:
        with display:
            return run_experiment(experiment, path, display.update)
    except KeyboardInterrupt as error:
        latest = display.latest
        if latest is None:
            say("Stopped before the first sequence.")
        else:
            say(
                f"Stopped. {latest.done} of {latest.total} sequences are kept in {latest.path}; "
                "the same command continues from there."
            )
        raise typer.Exit(INTERRUPTED) from error


def _show(results: Results) -> None:
    from freshkv.compare import describe_findings, summarize

    summaries = summarize(results)
    console = output()
    console.print(f"\n{_describe(results)}", markup=False)
    console.print(comparison_table(summaries, console))
    console.print()
    console.print(explain_columns(), style="dim", markup=False)
    console.print()
    for finding in describe_findings(summaries):
        console.print(finding, markup=False)
    console.print(f"\nResults: {results.path}", markup=False, soft_wrap=True)


def _describe(results: Results) -> str:
    """What was compared, in a line."""
    experiment, environment = results.header.experiment, results.header.environment
    problems = experiment["problems"] * len(experiment["seeds"])
    blocks = "one block" if experiment["block_length"] is None else f"blocks of {experiment['block_length']}"
    return (
        f"{results.header.model}, {', '.join(experiment['decoders'])}, "
        f"{problems} problem{'s' * (problems != 1)} of each task, {blocks}; "
        f"{experiment['dtype']} on {environment['device']}, threads: {environment['threads']}"
    )
