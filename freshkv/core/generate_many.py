"""``freshkv.generate_many``: requests of any length in, a result for each as it is finished."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from freshkv.core.arguments import check_model, eos_of
from freshkv.core.capacity import MOST_SLOTS, SHARE
from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError
from freshkv.core.loop import RunOptions
from freshkv.core.network import Network
from freshkv.core.packing import OnMessage
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.request import Request, RequestResult
from freshkv.core.sampling import Sampling
from freshkv.core.serving import Serving


def generate_many(
    model: Network,
    requests: Iterable[Request],
    *,
    policy: str | CachePolicy = "none",
    decoder: str | Decoder = "confidence",
    batch_size: int | None = None,
    stop_at_eos: bool = False,
    eos_token_id: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    keep_traces: bool = False,
    max_batch_size: int = MOST_SLOTS,
    memory_share: float = SHARE,
    on_message: OnMessage | None = None,
) -> Iterator[RequestResult]:
    """Decode ``requests``, several at a time, and yield the result of each as soon as it is finished.

    A batch has places, slots. A sequence that is finished leaves its slot, and the next request is admitted before the
    next pass. Requests are served in the order in which they are given; longest first keeps most slots busy at the end.
    What comes of a request is what ``generate`` gives for it alone, whatever it is decoded with.

    Memory: with ``batch_size`` None, as many slots as fit what the device has free, for the longest request. Where
    memory runs out all the same, the slots are halved, with a message, and requests that were under way begin again.

    Args:
        model: a network, as ``freshkv.load`` returns it.
        requests: prompts of any lengths, each with its own response length, blocks and seed.
        policy: a name, ``"name:field=value,..."``, or a CachePolicy.
        decoder: likewise a Decoder.
        batch_size: slots, the most sequences in a forward pass. None: planned from the memory that is free.
        stop_at_eos: as for ``generate``.
        eos_token_id: None: the model's own.
        temperature: as for ``generate``, of all requests; so are the next two.
        top_k: sample among the most probable tokens only.
        top_p: sample among the smallest set of tokens of this probability only.
        keep_traces: give each result the trace of its request. They take memory of the device while it is decoded.
        max_batch_size: the most slots that a plan gives.
        memory_share: of the memory that is free, what a plan makes use of.
        on_message: is told of the plan, of slots that are halved, and of requests that are given up. None: the last two
            are warnings.

    Raises:
        InputError: an argument, or a request, has a wrong shape or value; raised at once, before any work.
        SpecError, UnknownNameError: ``policy`` or ``decoder`` cannot be built from its text; likewise.
        PolicyError, DecoderError: one of them returned something invalid.
        DeviceMemoryError: not even one sequence fits.
        NumericalError: the logits of some requests were NaN; raised when all others are finished.

    Results that were yielded before an error are whole.
    """
    check_model(model)
    eos = eos_of(stop_at_eos, eos_token_id, model.network_spec)
    serving = Serving(
        model=model,
        options=RunOptions(
            policy=resolve_policy(policy),
            decoder=resolve_decoder(decoder),
            sampling=Sampling(temperature=temperature, top_k=top_k, top_p=top_p),
            seeds=(),
        ),
        eos_token_id=eos,
        keep_traces=keep_traces,
        on_message=on_message,
    )
    given = _checked(requests, model, eos)
    for name, size, nothing in (("batch_size", batch_size, ", or None"), ("max_batch_size", max_batch_size, "")):
        if (size is not None or not nothing) and (type(size) is not int or size < 1):
            raise InputError(f"{name} is {size!r}; expected a whole number of at least 1{nothing}.")
    if not 0 < memory_share <= 1:
        raise InputError(f"memory_share is {memory_share!r}; expected a number in (0, 1].")
    return serving.serve(given, batch_size, share=memory_share, most=max_batch_size)


def _checked(requests: Iterable[Request], model: Network, eos: int | None) -> list[Request]:
    given = list(requests)
    for index, request in enumerate(given):
        if not isinstance(request, Request):
            raise InputError(f"Request {index} is a {type(request).__name__}; expected a freshkv.Request.")
        try:
            request.canvas(model.network_spec, torch.device("cpu"), eos)
        except InputError as error:
            raise InputError(f"Request {index}: {error}") from error
    return given
