"""A batch whose places, the slots, are filled anew from a queue as soon as their sequences are finished."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import torch
from attrs import evolve

from freshkv.core.axes import SEQ
from freshkv.core.inspect import Progress
from freshkv.core.loop import DenoisingLoop, RunOptions
from freshkv.core.network import Network
from freshkv.core.request import Request, RequestResult, RequestStats
from freshkv.core.request_queue import Numbered, RequestQueue
from freshkv.core.request_recorder import RequestRecorder, Tally, trace_of
from freshkv.core.run import count_produced, without_masks
from freshkv.core.state import RunState
from freshkv.core.trace_facts import trace_facts

OnMessage = Callable[[str], None]


class Packing:
    """Decodes requests of a queue, at most ``slots`` at a time.

    The canvas is as wide as the longest of the waiting requests needs. Responses end in its last column, so that
    everything left of a request's prompt is padding, whose rows are never computed.
    """

    def __init__(
        self,
        network: Network,
        queue: RequestQueue,
        options: RunOptions,
        *,
        slots: int,
        eos_token_id: int | None,
        keep_traces: bool,
        on_message: OnMessage,
    ) -> None:
        self._network, self._queue, self._slots = network, queue, slots
        self._eos, self._keep_traces, self._say = eos_token_id, keep_traces, on_message
        self._width = max(request.columns for request in queue.waiting)
        first = queue.take(slots)
        self._recorder = RequestRecorder(keep_traces=keep_traces)
        self._recorder.admit(first)
        options = evolve(options, seeds=_seeds(first), packed=True)
        self._loop = DenoisingLoop(network, self._start(first), options, self._recorder)

    @torch.no_grad()
    def run(self) -> Iterator[RequestResult]:
        """Until the queue is empty and all are finished: each result when it is there."""
        while self._loop.state.batch > 0 and not self._queue.is_hopeless:
            started = time.perf_counter()
            progress = self._loop.step()
            self._recorder.spend(time.perf_counter() - started)
            yield from self._leave(progress)
            self._admit()

    def _start(self, newcomers: list[Numbered]) -> RunState:
        """The state of requests that begin, on canvases of the same width."""
        spec, device = self._network.network_spec, self._network.device
        states = []
        for numbered in newcomers:
            state = RunState.start(numbered.request.canvas(spec, device, self._eos)).widened(self._width)
            states.append(evolve(state, sequence=torch.full_like(state.sequence, numbered.index)))
        return reduce(RunState.joined, states)

    def _admit(self) -> None:
        newcomers = self._queue.take(self._slots - self._loop.state.batch)
        if newcomers:
            self._recorder.admit(newcomers)
            self._loop.admit(self._start(newcomers), _seeds(newcomers))

    def _leave(self, progress: Progress) -> Iterator[RequestResult]:
        leaving = [not unfinished or nan for unfinished, nan in zip(progress.unfinished, progress.broken, strict=True)]
        broken = [nan for nan, leaves in zip(progress.broken, leaving, strict=True) if leaves]
        for tally, nan in zip(self._recorder.leave(leaving), broken, strict=True):
            if nan:
                self._fail(tally)
                continue
            result = self._result(tally)
            self._queue.finish(tally.numbered.index)
            yield result

    def _fail(self, tally: Tally) -> None:
        where = f"request {tally.numbered.index} at step {tally.forwards - 1}"
        self._queue.give_up(tally.numbered.index, where)
        self._say(f"The model's logits are NaN (or infinite) in {where}. It is given up; the others go on.")

    def _result(self, tally: Tally) -> RequestResult:
        request, mask = tally.numbered.request, self._network.network_spec.mask_token_id
        length = len(request.input_ids)
        prompt, masked = tally.tokens[None, :length], tally.tokens[None, length:]
        response = without_masks(masked, mask, self._eos)
        return RequestResult(
            index=tally.numbered.index,
            request=request,
            sequence=torch.cat((prompt, response), dim=SEQ)[0],
            stats=RequestStats(
                forwards=tally.forwards,
                passes=tally.passes,
                rows_computed=tally.rows / self._network.network_spec.layers,
                tokens_committed=int((masked != mask).sum()),
                tokens_produced=int(count_produced(response, self._eos)),
                seconds=tally.seconds,
                slots=self._slots,
            ),
            trace=trace_of(tally, mask, self._facts(request)) if self._keep_traces else None,
        )

    def _facts(self, request: Request) -> dict[str, Any]:
        network, canvas = self._network, request.canvas(self._network.network_spec, torch.device("cpu"))
        return trace_facts(
            network,
            self._loop.options,
            gen_length=canvas.gen_length,
            block_length=canvas.block_length,
            padding=[0],
            seeds=[request.seed],
            eos_token_id=self._eos,
        )


def _seeds(numbered: list[Numbered]) -> tuple[int, ...]:
    return tuple(each.request.seed for each in numbered)
