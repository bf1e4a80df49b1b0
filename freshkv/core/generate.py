"""``freshkv.generate``: arguments in, a run out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.canvas import Canvas
from freshkv.core.cost import cost_of_trace
from freshkv.core.decoder import Decoder
from freshkv.core.errors import FreshkvError, InputError
from freshkv.core.graphs import Record, record_cuda_graph
from freshkv.core.loop import DenoisingLoop, OnStep, RunOptions
from freshkv.core.memory import PeakMemory
from freshkv.core.network import Network, NetworkSpec
from freshkv.core.policy import CachePolicy, LayerwisePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.run import Run, RunStats, count_produced
from freshkv.core.sampling import Sampling
from freshkv.core.truth import OnEvidence
from freshkv.core.version import VERSION


# tensors made in inference mode count no versions, and the guard against policies that write reads them
@torch.inference_mode(mode=False)
def generate(
    model: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    policy: str | CachePolicy = "none",
    decoder: str | Decoder = "confidence",
    gen_length: int = 128,
    block_length: int | None = None,
    stop_at_eos: bool = False,
    eos_token_id: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | Sequence[int] = 0,
    on_step: OnStep | None = None,
    cuda_graphs: bool = False,
) -> Run:
    """Decode a response of ``gen_length`` tokens for every prompt.

    Args:
        model: a network, as ``freshkv.load`` returns it; anything that implements ``freshkv.core.network.Network``.
        input_ids: long [batch, prompt], padded on the left.
        attention_mask: bool or 0/1 [batch, prompt], 0 at padding. None: no padding.
        policy: a name, ``"name:field=value,..."``, or a CachePolicy.
        decoder: likewise a Decoder.
        gen_length: response positions of each sequence.
        block_length: positions decoded before the next block opens; divides ``gen_length``. None: one block. Of a
            block-causal network, a divisor of its own block, counted from the first token; None: its own block.
        stop_at_eos: end a sequence once every position before its first EOS is decided; masks that are left become EOS.
        eos_token_id: None: the model's own.
        temperature: 0 takes the most probable token; otherwise tokens are sampled.
        top_k: sample among the most probable tokens only.
        top_p: sample among the smallest set of tokens of this probability only.
        seed: of the random numbers; one for all sequences (each has its own generator, so that a sequence does not
            depend on its batch), or one for each.
        on_step: called with the record of every step as it is done.
        cuda_graphs: record the passes of each number of rows as a CUDA graph and replay it. For many steps with few
            rows on a GPU; takes memory for each recording. Narrow policies that hide no keys; others run as ever.

    Raises:
        InputError: an argument has a wrong shape, dtype or value; raised before any work.
        SpecError, UnknownNameError: ``policy`` or ``decoder`` cannot be built from its text.
        PolicyError, DecoderError: one of them returned something invalid.
        NumericalError: the logits are NaN.

    The last three carry what was decoded before, a Run, in their attribute ``partial``.
    """
    _check_model(model)
    chosen_policy, chosen_decoder = resolve_policy(policy), resolve_decoder(decoder)
    spec = model.network_spec
    eos = _eos(stop_at_eos, eos_token_id, spec)
    canvas = Canvas.create(input_ids, attention_mask, gen_length, block_length, spec, model.device, eos)
    options = RunOptions(
        policy=chosen_policy,
        decoder=chosen_decoder,
        sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
        seeds=_seeds(seed, canvas.batch),
        record=_record(model, cuda_graphs=cuda_graphs),
    )
    return run_canvas(model, canvas, options, on_step)


@torch.inference_mode(mode=False)
def run_canvas(
    model: Network,
    canvas: Canvas,
    options: RunOptions,
    on_step: OnStep | None = None,
    on_evidence: OnEvidence | None = None,
) -> Run:
    """``generate`` behind its arguments: decode a canvas with checked options.

    ``on_evidence`` is shown every step beside the uncached forward, which takes the time of a second run.
    """
    memory = PeakMemory(model.device)
    started = time.perf_counter()
    loop = DenoisingLoop(model, canvas, options, on_evidence)
    try:
        loop.run(on_step)
    except FreshkvError as error:
        error.partial = _result(loop, canvas, options, time.perf_counter() - started, memory.bytes)
        raise
    _wait_for(model.device)
    return _result(loop, canvas, options, time.perf_counter() - started, memory.bytes)


def _result(loop: DenoisingLoop, canvas: Canvas, options: RunOptions, seconds: float, peak_bytes: int) -> Run:
    trace = loop.recorder.trace(_facts(loop.engine.network, canvas, options))
    tokens = loop.recorder.tokens
    response = tokens[:, canvas.prompt_length :]
    eos = canvas.eos_token_id
    committed = int((response != canvas.mask_token_id).sum())
    if eos is not None:
        response = response.masked_fill(response == canvas.mask_token_id, eos)
    produced = count_produced(response, eos)
    return Run(
        sequences=torch.cat((tokens[:, : canvas.prompt_length], response), dim=SEQ),
        trace=trace,
        produced=produced,
        stats=RunStats(
            forwards=len(trace),
            rows_computed=sum(step.rows_computed for step in trace),
            tokens_committed=committed,
            tokens_produced=int(produced.sum()),
            seconds=seconds,
            peak_bytes=peak_bytes,
            cache_bytes=loop.engine.store.bytes,
            cost=cost_of_trace(trace, loop.engine.spec),
        ),
    )


def _facts(model: Network, canvas: Canvas, options: RunOptions) -> dict[str, Any]:
    """What a trace needs to be understood and run again, besides its model."""
    sampling = options.sampling
    return {
        "freshkv": VERSION,
        "torch": torch.__version__,
        "policy": options.policy.spec,
        "decoder": options.decoder.spec,
        "gen_length": canvas.gen_length,
        "block_length": canvas.block_length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "carried": isinstance(options.policy, LayerwisePolicy),
        "signals": sorted(options.policy.needs),
        "padding": (~canvas.is_valid).sum(dim=SEQ).tolist(),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seeds": list(options.seeds),
        "eos_token_id": canvas.eos_token_id,
    }


def _eos(stop: bool, given: int | None, spec: NetworkSpec) -> int | None:
    if not stop:
        return None
    eos = spec.eos_token_id if given is None else given
    if eos is None:
        raise InputError("stop_at_eos needs an EOS token, and the model names none: pass eos_token_id.")
    if not 0 <= eos < spec.vocabulary:
        raise InputError(f"eos_token_id is {eos}; the model's vocabulary is 0 to {spec.vocabulary - 1}.")
    if eos == spec.mask_token_id:
        raise InputError(f"eos_token_id is {eos}, the model's mask token: a sequence could never end there.")
    return eos


def _record(model: Network, *, cuda_graphs: bool) -> Record | None:
    if not cuda_graphs:
        return None
    if model.device.type != "cuda":
        raise InputError(f"cuda_graphs=True needs a model on a CUDA device; this one is on {model.device}.")
    return record_cuda_graph


def _seeds(seed: int | Sequence[int], batch: int) -> tuple[int, ...]:
    if isinstance(seed, int):
        return (seed,) * batch
    seeds = _whole_numbers(seed)
    if len(seeds) != batch:
        raise InputError(f"seed has {len(seeds)} numbers for {batch} sequences; expected one for all, or one for each.")
    return seeds


def _whole_numbers(seed: object) -> tuple[int, ...]:
    if not isinstance(seed, (list, tuple)) or not all(isinstance(each, int) for each in seed):
        raise InputError(f"seed is {seed!r}; expected a whole number, or a list with one for each sequence.")
    return tuple(seed)


def _check_model(model: object) -> None:
    if not isinstance(model, Network):
        hint = f" Load it first: freshkv.load({model!r})." if isinstance(model, str) else ""
        raise InputError(f"model is a {type(model).__name__}; expected a network, as freshkv.load returns it.{hint}")


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
