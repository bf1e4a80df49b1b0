"""``freshkv generate``: one answer, and how it came about."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freshkv.cli import options
from freshkv.cli.console import say
from freshkv.cli.failures import Debug, reports_errors
from freshkv.cli.live import StepDisplay
from freshkv.cli.loading import patient
from freshkv.cli.question import Question, ask, check_source
from freshkv.core.errors import InputError

if TYPE_CHECKING:
    from freshkv.compare.cases import Case
    from freshkv.core.decoder import Decoder
    from freshkv.core.network import Network
    from freshkv.core.policy import CachePolicy
    from freshkv.core.run import Run
    from freshkv.models.backbone import LlamaLikeModel

HELP = (
    "Generate one answer, to a text of your own or to a problem of a task.\n\n"
    "The answer goes to standard output, everything about it to standard error. With --live every step is shown: "
    "which tokens were committed, which rows were recomputed and which reused.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv generate --task sums --policy dual --live\n"
    "  freshkv generate --task weave --problem 3 --trace weave.safetensors\n"
    "  freshkv generate --model path/to/LLaDA-8B --prompt 'Why is the sky blue?'\n"
)


@reports_errors
def generate(
    model: options.Model = "tiny-llada",
    prompt: Annotated[str | None, typer.Option("--prompt", help="A text to answer.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="A task to take a problem from. Without --prompt, too: the first one.")
    ] = None,
    problem: Annotated[int, typer.Option("--problem", min=0, help="Which problem of the task, from 0.")] = 0,
    policy: Annotated[str, typer.Option("--policy", help="A policy: name or name:field=value,...")] = "none",
    decoder: Annotated[str, typer.Option("--decoder", help="A decoder, likewise.")] = "confidence",
    live: Annotated[bool, typer.Option("--live", help="Show every step.")] = False,
    delay: Annotated[float, typer.Option("--delay", min=0.0, help="Seconds that --live stays at a step.")] = 0.1,
    trace: Annotated[Path | None, typer.Option("--trace", help="Save the trace to this file (safetensors).")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Draws the problem and random numbers.")] = 0,
    gen_length: options.GenLength = None,
    block_length: options.BlockLength = 16,
    temperature: options.Temperature = 0.0,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    stop_at_eos: options.StopAtEos = False,
    published: options.Published = False,
    raw: options.Raw = False,
    dtype: options.Dtype = "auto",
    quantise: options.Quantise = None,
    device: options.Device = "cpu",
    tensor_parallel: options.TensorParallel = False,
    threads: options.Threads = None,
    debug: Debug = False,
) -> None:
    """Encode, decode, print."""
    _check_arguments(prompt, task, trace)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "stop_at_eos": stop_at_eos}
    with patient():
        chosen = _resolve(policy, decoder)  # before a large model is loaded
        from freshkv.compare.prompts import decode_response
        from freshkv.compare.threads import cpu_threads
        from freshkv.models import load
        from freshkv.models.tensor_parallel import is_first_process
        from freshkv.models.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(model)
        silent = tensor_parallel and not is_first_process()  # all who hold the model together have the same answer
        question = ask(prompt, task, seed, problem, tokenizer, raw, quiet=silent)
        lengths = {"gen_length": gen_length or question.gen_length, "block_length": block_length}
        with cpu_threads(model, threads):
            weights: dict[str, Any] = {} if quantise is None else {"quantization_config": quantise}
            where: dict[str, Any] = {"tensor_parallel": True} if tensor_parallel else {"device": device}
            network = load(model, dtype=dtype, **where, **weights)
            mask = network.network_spec.mask_token_id
            display = StepDisplay(tokenizer, mask, len(question.ids), delay) if live and not silent else None
            as_published = _published(network) if published else {}
            run = _decode(network, question, chosen, display, {**lengths, **sampling, **as_published})
    if silent:
        return
    text = decode_response(tokenizer, run.responses[0, : int(run.produced[0])].tolist())
    typer.echo(text)
    _show_facts(run, question.case, text, live=live)
    if trace is not None:
        run.trace.save(trace)
        say(f"trace: {trace}")


def _check_arguments(prompt: str | None, task: str | None, trace: Path | None) -> None:
    check_source(prompt, task)
    if trace is not None and not trace.absolute().parent.is_dir():
        raise InputError(f"--trace {trace}: there is no folder {trace.parent}; make it first, or choose another.")


def _published(network: LlamaLikeModel) -> dict[str, Any]:
    from freshkv.models import published_defaults

    arguments = published_defaults(network).arguments
    return {name: arguments[name] for name in ("block_length", "temperature", "top_p")}


def _resolve(policy: str, decoder: str) -> tuple[CachePolicy, Decoder]:
    from freshkv.core.registry import resolve_decoder, resolve_policy

    return resolve_policy(policy), resolve_decoder(decoder)


def _decode(
    network: Network,
    question: Question,
    chosen: tuple[CachePolicy, Decoder],
    display: StepDisplay | None,
    run_options: dict[str, Any],
) -> Run:
    import torch

    from freshkv.core.generate import generate as run_model

    policy, decoder = chosen
    with display or nullcontext():
        return run_model(
            network,
            torch.tensor([question.ids]),
            policy=policy,
            decoder=decoder,
            seed=question.seed,
            on_step=None if display is None else display.show,
            **run_options,
        )


def _show_facts(run: Run, case: Case | None, text: str, *, live: bool) -> None:
    if case is not None:
        say("solved: yes" if case.task.check(case.problem, text) else f"solved: no, expected {case.problem.answer}")
    stats, canvas = run.stats, run.sequences.shape[1]
    share = stats.rows_computed / (stats.forwards * canvas)
    facts = f"{stats.forwards} forwards, {share:.0%} of the canvas computed in each"
    # the time of a live run is that of the display
    say(facts if live else f"{facts}, {stats.seconds:.2f} s, {stats.tokens_per_second:.1f} tokens/s")
