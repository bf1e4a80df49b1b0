"""``freshkv.generate``: arguments in, a run out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from freshkv.core.arguments import check_model, eos_of, seeds_of
from freshkv.core.axes import SEQ
from freshkv.core.canvas import Canvas
from freshkv.core.cost import cost_of_trace
from freshkv.core.decoder import Decoder
from freshkv.core.division import division_of
from freshkv.core.errors import FreshkvError, InputError
from freshkv.core.graphs import Record, record_cuda_graph
from freshkv.core.loop import DenoisingLoop, OnStep, RunOptions
from freshkv.core.memory import PeakMemory
from freshkv.core.network import Network
from freshkv.core.policy import CachePolicy
from freshkv.core.recorder import Recorder
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.run import Run, RunStats, count_produced, without_masks
from freshkv.core.sampling import Sampling
from freshkv.core.state import RunState
from freshkv.core.trace_facts import trace_facts
from freshkv.core.truth import OnEvidence


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
    reuse_projections: bool = False,
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
        reuse_projections: where the first layer is refreshed as a whole in pass after pass (``none``, ``dllm``), keep
            its queries, keys and values of rows whose token stays. They depend on nothing else; counters count those
            rows as ever. Of no effect with ``cuda_graphs``.

    Raises:
        InputError: an argument has a wrong shape, dtype or value; raised before any work.
        SpecError, UnknownNameError: ``policy`` or ``decoder`` cannot be built from its text.
        PolicyError, DecoderError: one of them returned something invalid.
        NumericalError: the logits are NaN.

    The last three carry what was decoded before, a Run, in their attribute ``partial``.
    """
    check_model(model)
    chosen_policy, chosen_decoder = resolve_policy(policy), resolve_decoder(decoder)
    spec = model.network_spec
    eos = eos_of(stop_at_eos, eos_token_id, spec)
    canvas = Canvas.create(input_ids, attention_mask, gen_length, block_length, spec, model.device, eos)
    options = RunOptions(
        policy=chosen_policy,
        decoder=chosen_decoder,
        sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
        seeds=seeds_of(seed, canvas.batch),
        record=_record(model, cuda_graphs=cuda_graphs),
        reuse_projections=reuse_projections,
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
    recorder = Recorder(canvas)
    loop = DenoisingLoop(model, RunState.start(canvas), options, recorder, on_evidence)

    def result() -> Run:
        return _result(loop, canvas, recorder, time.perf_counter() - started, memory.bytes)

    try:
        loop.run(lambda: None if on_step is None else on_step(recorder.last()))
    except FreshkvError as error:
        error.partial = result()
        raise
    _wait_for(model.device)
    return result()


def _result(loop: DenoisingLoop, canvas: Canvas, recorder: Recorder, seconds: float, peak_bytes: int) -> Run:
    facts = trace_facts(
        loop.engine.network,
        loop.options,
        gen_length=canvas.gen_length,
        block_length=canvas.block_length,
        padding=(~canvas.is_valid).sum(dim=SEQ).tolist(),
        seeds=loop.options.seeds,
        eos_token_id=canvas.eos_token_id,
    )
    trace = recorder.trace(facts)
    response = recorder.tokens[:, canvas.prompt_length :]
    committed = int((response != canvas.mask_token_id).sum())
    response = without_masks(response, canvas.mask_token_id, canvas.eos_token_id)
    produced = count_produced(response, canvas.eos_token_id)
    return Run(
        sequences=torch.cat((recorder.tokens[:, : canvas.prompt_length], response), dim=SEQ),
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


def _record(model: Network, *, cuda_graphs: bool) -> Record | None:
    if not cuda_graphs:
        return None
    if model.device.type != "cuda":
        raise InputError(f"cuda_graphs=True needs a model on a CUDA device; this one is on {model.device}.")
    if division_of(model).parts > 1:
        raise InputError("cuda_graphs=True and a model that several processes hold together exclude each other.")
    return record_cuda_graph


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
