"""``freshkv compare``: policies x decoders on tasks, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freshkv.cli import options
from freshkv.cli.console import output, say
from freshkv.cli.experiments import Plan, make_plan
from freshkv.cli.failures import FAILED, INTERRUPTED, Debug, reports_errors
from freshkv.cli.front_table import explain_fronts, front_table, is_sweep
from freshkv.cli.loading import patient
from freshkv.cli.place import find_place
from freshkv.cli.progress import ProgressDisplay
from freshkv.cli.table import comparison_table, explain_columns

if TYPE_CHECKING:
    from rich.console import Console

    from freshkv.compare import Results
    from freshkv.compare.cluster.place import Place

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
    "  freshkv compare --policy 'd2cache:current_k=8|16|32,rollout_p=0.05..0.2..0.05'\n"
    "  freshkv compare --match-budget dual\n"
    "  freshkv compare study.toml --problems 2\n"
    "  freshkv compare study.toml --on ray --workers 4\n"
)


#: one token a step, and as many as are certain: some policies only show a loss with the second
DECODERS = ["confidence", "threshold"]
FILES = "Files"
FAIRNESS = "A comparison that can be believed"


@reports_errors
def compare(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            help="An experiment file, TOML or YAML; options replace what it says.", show_default=False, metavar="[FILE]"
        ),
    ] = None,
    model: options.Model = "tiny-llada",
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A task; repeat it for several. Left out: all.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="A policy, name or name:field=value,...; repeat it. A value may be a grid, 8|16|32, or a range, "
            "8..32..8 or 8..64..*2. Left out: the built-in five.",
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
    on: options.On = "here",
    address: options.Address = None,
    workers: options.Workers = None,
    repeats: Annotated[
        int,
        typer.Option("--repeats", help="Decodings of each problem: surer speed-ups.", rich_help_panel=FAIRNESS),
    ] = 1,
    match_budget: Annotated[
        str | None,
        typer.Option(
            "--match-budget",
            help="Compare at equal rows computed: those of a policy such as dual, or a share of the canvas such as "
            "0.25. Policies are tuned on other problems.",
            rich_help_panel=FAIRNESS,
        ),
    ] = None,
    regret: Annotated[
        bool,
        typer.Option(
            "--regret",
            help="Run an oracle and random rows beside each policy, with as many rows: what could be had.",
            rich_help_panel=FAIRNESS,
        ),
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option("--like", help="Measure again what a results file holds, into another.", rich_help_panel=FILES),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", help="Continue a results file; it says what to run.", rich_help_panel=FILES),
    ] = None,
    write_experiment: Annotated[
        Path | None,
        typer.Option(
            "--write-experiment", help="Write an experiment file that says the same, and stop.", rich_help_panel=FILES
        ),
    ] = None,
    traces: Annotated[
        int,
        typer.Option(
            "--traces",
            help="Keep the steps of the first so many problems of each task, for the player of freshkv report.",
            rich_help_panel=FILES,
        ),
    ] = 1,
    drift: Annotated[
        int,
        typer.Option(
            "--drift",
            help="Measure how far caches are from the uncached forward in the first so many problems of each task.",
            rich_help_panel=FILES,
        ),
    ] = 0,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="Draw the Pareto fronts: .html, or with kaleido .png.", rich_help_panel=FILES),
    ] = None,
    debug: Debug = False,
) -> None:
    """Plan what to compare, run what is left of it, and show the table."""
    with patient():
        place = find_place(on, address, workers)
        fields = _given_or_default(
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
            repeats=repeats,
            match_budget=match_budget,
            regret=regret,
        )
        plan = make_plan(context, fields, file=file, like=like, resume=resume, output=output_file)
        if write_experiment is not None:
            _write_experiment(plan, write_experiment)
            return
        if plot is not None:
            from freshkv.compare.pareto_plot import check_plot

            check_plot(plot)
        every = _run(plan, place, traces, drift)
    for results in every:
        _show(results)
    _show_fronts(every, plot)
    if plan.earlier is not None:
        _show_agreement(plan.earlier, every[0])
    if any(results.open_failures for results in every):
        raise typer.Exit(FAILED)


def _given_or_default(**fields: Any) -> dict[str, Any]:
    """The fields of an experiment; what was not given is left to its defaults."""
    repeatable = ("tasks", "policies", "decoders", "seeds")
    return {name: value for name, value in fields.items() if value or name not in repeatable}


def _write_experiment(plan: Plan, path: Path) -> None:
    from freshkv.compare.experiment_writer import write_experiment_file

    write_experiment_file(path, plan.sweep)
    output().print(f"Wrote {path}. To run it: freshkv compare {path}", markup=False, soft_wrap=True)


def _run(plan: Plan, place: Place, traces: int, drift: int) -> tuple[Results, ...]:
    from freshkv.compare import run_experiment
    from freshkv.compare.beside import Keep
    from freshkv.compare.sweep import run_sweep

    keep = Keep(traces=traces, drift=drift)
    display = ProgressDisplay()
    try:
        with display:
            if plan.sweep.axes and plan.output is not None:
                return run_sweep(plan.sweep, plan.output, display.update, keep, place)
            return (run_experiment(plan.sweep.experiments[0], plan.output, display.update, keep, place),)
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
    _show_regret(results, console)
    _show_doubts(results, console)
    console.print(f"\nResults: {results.path}", markup=False, soft_wrap=True)


def _show_regret(results: Results, console: Console) -> None:
    """What each policy lacks to an oracle, where one ran beside it."""
    from freshkv.cli.regret_table import explain_regret, regret_table
    from freshkv.compare import describe_regret, measure_regret

    regrets = measure_regret(results)
    if regrets:
        console.print()
        console.print(regret_table(regrets))
        console.print()
        console.print(explain_regret(), style="dim", markup=False)
        console.print()
        for sentence in describe_regret(regrets):
            console.print(sentence, markup=False)


def _show_doubts(results: Results, console: Console) -> None:
    """What makes the comparison unfair, or weaker than it looks."""
    from freshkv.compare import check_fairness

    doubts = check_fairness(results)
    if doubts:
        console.print("\nBefore you conclude:", style="bold yellow")
    for doubt in doubts:
        console.print(f"- {doubt}", markup=False)


def _show_fronts(every: Sequence[Results], plot: Path | None) -> None:
    """The Pareto fronts, where options or settings vary."""
    from freshkv.compare.pareto import find_candidates

    candidates = find_candidates(every)
    if is_sweep(candidates):
        console = output()
        console.print()
        console.print(front_table(candidates))
        console.print()
        console.print(explain_fronts(), style="dim", markup=False)
    if plot is not None:
        from freshkv.compare.pareto_plot import write_plot

        write_plot(candidates, plot)
        output().print(f"\nPlot: {plot}", markup=False, soft_wrap=True)


def _show_agreement(earlier: Results, results: Results) -> None:
    from freshkv.compare.rerun import compare_runs

    agreement = compare_runs(earlier, results)
    console = output()
    console.print(
        f"\nThe same tokens as in {earlier.path} in {agreement.same} of {agreement.sequences} sequences.",
        markup=False,
        soft_wrap=True,
    )
    for difference in agreement.differences:
        console.print(f"  {difference}", markup=False, soft_wrap=True)


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
