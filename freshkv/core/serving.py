"""Batch after batch until a queue is empty: with fewer slots each time that memory runs out."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence

import torch
from attrs import frozen

from freshkv.core.agreement import check_same_requests
from freshkv.core.capacity import MOST_SLOTS, SHARE, SequenceBytes, SlotPlan, readable, workload_of
from freshkv.core.division import Division, division_of
from freshkv.core.errors import DeviceMemoryError, NumericalError
from freshkv.core.loop import RunOptions
from freshkv.core.memory import free_bytes
from freshkv.core.network import Network
from freshkv.core.out_of_memory import release, shortage
from freshkv.core.packing import OnMessage, Packing
from freshkv.core.request import Request, RequestResult
from freshkv.core.request_queue import RequestQueue


@frozen(kw_only=True, eq=False)
class Serving:
    """Serves requests with one model, policy and decoder. ``generate_many`` behind its arguments."""

    model: Network
    options: RunOptions  #: seeds are those of the requests
    eos_token_id: int | None = None
    keep_traces: bool = False
    on_message: OnMessage | None = None

    @property
    def _division(self) -> Division:
        return division_of(self.model)

    # tensors made in inference mode count no versions, and the guard against policies that write reads them
    @torch.inference_mode(mode=False)
    def serve(
        self,
        requests: Sequence[Request],
        batch_size: int | None = None,
        *,
        share: float = SHARE,
        most: int = MOST_SLOTS,
    ) -> Iterator[RequestResult]:
        """Each result as it is finished. ``share`` of the memory, and ``most`` slots, are what a plan makes use of."""
        check_same_requests(self._division, requests, self.options, self.model.device)
        queue = RequestQueue(requests)
        slots = batch_size
        while len(queue) > 0:
            slots = self._planned(queue, share, most) if slots is None else min(slots, len(queue))
            lacking = yield from self._until_memory_runs_out(queue, slots)
            if lacking is None:
                break
            if slots == 1:
                raise self._too_large(queue, lacking)
            release(self.model.device)
            halved, again = slots // 2, queue.put_back()
            self._warn(
                f"{lacking[0].upper()}{lacking[1:]}, with {slots} sequences decoded together. Going on with {halved}; "
                f"{again} that were not finished begin again."
            )
            slots = halved
        if queue.failed:
            others = "None was finished, and no more were tried" if queue.is_hopeless else "All others are finished"
            raise NumericalError(
                f"The model's logits are NaN (or infinite) in {', '.join(queue.failed)}. Try another dtype (float32, "
                f"bfloat16), and look for a damaged checkpoint. {others}."
            )

    def _until_memory_runs_out(self, queue: RequestQueue, slots: int) -> Generator[RequestResult, None, str | None]:
        """One batch. Returns what memory was lacking for, None if for nothing."""
        try:
            packing = Packing(
                self.model,
                queue,
                self.options,
                slots=slots,
                eos_token_id=self.eos_token_id,
                keep_traces=self.keep_traces,
                on_message=self._warn,
            )
            yield from packing.run()
        except Exception as error:
            lacking = shortage(error)
            # of several processes with a part of the model each, the others would wait for this one for ever
            if lacking is None or self._division.parts > 1:
                raise
        else:
            return None
        # behind the handler: the error holds all that was computed, and nothing of it could be released
        return lacking

    def _planned(self, queue: RequestQueue, share: float, most: int) -> int:
        # processes that hold the model together decode the same sequences, so that one of them plans for all
        free = int(self._division.first(torch.tensor(free_bytes(self.model.device), device=self.model.device)))
        plan = SlotPlan(sequence=self._sequence(queue.waiting), free=free, share=share, most=min(most, len(queue)))
        if self.on_message is not None and len(queue) > 1:
            self.on_message(str(plan))
        return plan.slots

    def _sequence(self, requests: Sequence[Request]) -> SequenceBytes:
        spec, options = self._division.part_of(self.model.network_spec), self.options
        parts = (options.policy, options.decoder, options.sampling)
        return workload_of(requests, *parts, spec=spec, dtype=self.model.dtype).bytes(spec)

    def _too_large(self, queue: RequestQueue, lacking: str) -> DeviceMemoryError:
        device = self.model.device
        release(device)
        index = queue.under_way[0]
        queue.put_back()
        request = queue.waiting[0]
        needed = self._sequence([request])
        return DeviceMemoryError(
            f"Request {index} ({len(request.input_ids)} prompt and {request.gen_length} response tokens) does not fit "
            f"the memory of {device} by itself: {lacking}. It takes about {needed} besides the weights, and "
            f"{readable(free_bytes(device))} are free. Shorten it, load the model in bfloat16, with fewer bits or over "
            "several devices, or choose a policy that keeps less; results that came before this error are whole."
        )

    def _warn(self, message: str) -> None:
        if self.on_message is None:
            warnings.warn(message, stacklevel=2)
        else:
            self.on_message(message)
