"""``freshkv drift``: a policy beside the uncached forward, step by step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import frozen

from freshkv.cli import options
from freshkv.cli.console import output, say
from freshkv.cli.drift_tables import detail_table, explain_tables, overview_table
from freshkv.cli.failures import Debug, reports_errors
from freshkv.cli.loading import patient
from freshkv.cli.question import Question, ask, check_source
from freshkv.cli.steps import StepsDisplay
from freshkv.core.errors import InputError

if TYPE_CHECKING:
    from freshkv.compare.drift import Drift
    from freshkv.core.decoder import Decoder
    from freshkv.core.network import Network
    from freshkv.core.policy import CachePolicy

HELP = (
    "Measure how far a policy's caches drift from the truth, and whether it matters.\n\n"
    "One answer is decoded with each policy. Beside it, on the same canvas, runs the uncached forward: cached keys, "
    "values and hidden states, the logits and the committed tokens are compared with it in every step, layer and "
    "position.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv drift --policy dual --policy d2cache\n"
    "  freshkv drift --task weave --policy dllm --policy oracle:budget=0.3 --plot drift.html\n"
    "  freshkv drift --model path/to/LLaDA-8B --prompt 'Why is the sky blue?' --policy dual --output dual.safetensors\n"
)

DEFAULT = ("prefix", "dual", "dllm", "d2cache")


@reports_errors
def drift(
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", help="A policy, name or name:field=value,...; repeat it. Left out: the built-in caches."
        ),
    ] = None,
    model: options.Model = "tiny-llada",
    prompt: Annotated[str | None, typer.Option("--prompt", help="A text to answer.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="A task to take a problem from. Without --prompt, too: the first one.")
    ] = None,
    problem: Annotated[int, typer.Option("--problem", min=0, help="Which problem of the task, from 0.")] = 0,
    decoder: Annotated[str, typer.Option("--decoder", help="A decoder, name or name:field=value,...")] = "confidence",
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Save everything to this file (safetensors); of several policies, each has its name added.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw heat maps: a page (.html), or an image (.png, .svg, .pdf).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the problem and random numbers.")] = 0,
    gen_length: options.GenLength = None,
    block_length: options.BlockLength = 16,
    raw: options.Raw = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    threads: options.Threads = None,
    debug: Debug = False,
) -> None:
    """Decode, compare, show."""
    check_source(prompt, task)
    with patient():
        chosen = _resolve(policy or DEFAULT, decoder)  # before a large model is loaded
        files = _files(output_file, chosen.policies)
        _check_files((*files, *(() if plot is None else (plot,))), plot)
        from freshkv.compare.threads import cpu_threads
        from freshkv.models import load
        from freshkv.models.tokenizer import load_tokenizer

        question = ask(prompt, task, seed, problem, load_tokenizer(model), raw)
        with cpu_threads(model, threads):
            network = load(model, device=device, dtype=dtype)
            drifts = _measure(network, question, chosen, gen_length or question.gen_length, block_length, files)
    _show(drifts)
    for file in files:
        say(f"drift: {file}")
    if plot is not None:
        _draw(drifts, plot)


@frozen
class Chosen:
    """What is run."""

    policies: tuple[CachePolicy, ...]
    decoder: Decoder


def _resolve(policies: Sequence[str], decoder: str) -> Chosen:
    from freshkv.core.registry import resolve_decoder, resolve_policy

    distinct = {policy.spec: policy for policy in map(resolve_policy, policies)}
    return Chosen(tuple(distinct.values()), resolve_decoder(decoder))


def _files(path: Path | None, policies: Sequence[CachePolicy]) -> tuple[Path, ...]:
    """One for each policy; several have their specs between the name's stem and its ending."""
    if path is None:
        return ()
    if len(policies) == 1:
        return (path,)
    specs = (re.sub(r"[^\w.=-]+", "-", policy.spec) for policy in policies)
    return tuple(path.with_name(f"{path.stem}.{spec}{path.suffix}") for spec in specs)


def _check_files(files: Sequence[Path], plot: Path | None) -> None:
    """Raise InputError before any work."""
    from freshkv.compare.drift_plot import check_plot

    for file in files:
        if not file.absolute().parent.is_dir():
            raise InputError(f"{file}: there is no folder {file.parent}; make it first, or choose another.")
    if plot is not None:
        check_plot(plot)


def _measure(
    network: Network, question: Question, chosen: Chosen, gen_length: int, block_length: int, files: Sequence[Path]
) -> list[Drift]:
    """All drifts; each is saved as soon as it is there."""
    import torch

    from freshkv.compare.drift import measure_drift
    from freshkv.core.generate import generate

    ids = torch.tensor([question.ids])
    lengths: dict[str, Any] = {"gen_length": gen_length, "block_length": block_length}
    drifts: list[Drift] = []
    with StepsDisplay(runs=1 + len(chosen.policies), positions=gen_length) as display:
        told = display.begin("the uncached run")
        uncached = generate(network, ids, decoder=chosen.decoder, seed=question.seed, on_step=told, **lengths).trace
        for number, policy in enumerate(chosen.policies):
            told = display.begin(policy.spec)
            drift = measure_drift(
                network,
                ids,
                policy=policy,
                decoder=chosen.decoder,
                seed=question.seed,
                on_step=told,
                uncached=uncached,
                **lengths,
            )
            if files:
                drift.save(files[number])
            drifts.append(drift)
    return drifts


def _show(drifts: Sequence[Drift]) -> None:
    console = output()
    summaries = [drift.summary() for drift in drifts]
    console.print(overview_table(summaries))
    for summary in summaries:
        console.print()
        console.print(detail_table(summary))
    console.print()
    console.print(explain_tables(), style="dim", markup=False)


def _draw(drifts: Sequence[Drift], path: Path) -> None:
    from freshkv.compare.drift_plot import write_drift_plot

    write_drift_plot(drifts, path)
    say(f"plot: {path}")
