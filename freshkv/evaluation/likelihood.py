"""Log-likelihoods of a masked diffusion model by Monte Carlo.

The estimate is of the bound that the model is trained with (LLaDA, arXiv:2502.09992, equations 4 and 6): the expected
weighted log-probability of masked target tokens, given the context and the tokens left visible. Passes are uncached.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.compare.measure import Subject, pad_prompts
from freshkv.core.axes import SEQ
from freshkv.core.capacity import LOGIT_BYTES, MOST_SLOTS, SHARE, SlotPlan, Workload
from freshkv.core.engine import Engine
from freshkv.core.generate import generate
from freshkv.core.memory import free_bytes
from freshkv.core.network import Network
from freshkv.core.predict import logits_at
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.rows import RowSet
from freshkv.evaluation.masking import Masks, draw_masks
from freshkv.evaluation.model_args import Masking
from freshkv.evaluation.responses import LikelihoodRecord
from freshkv.evaluation.shrinking import OnMessage, ShrinkingBatch

VOCABULARY = 1
#: positions whose logits are held at a time
POSITIONS_AT_ONCE = 256

OnLikelihoods = Callable[[Sequence[LikelihoodRecord]], None]


@frozen(kw_only=True)
class LikelihoodRequest:
    """To be told: how likely ``target`` is after ``context``."""

    key: str
    context: tuple[int, ...]  #: token ids, at least one
    target: tuple[int, ...]  #: token ids; empty: certain
    seed: int


@frozen(kw_only=True, eq=False)
class Estimator:
    """Monte Carlo with a model. A request's samples depend on its seed alone."""

    subject: Subject
    samples: int  #: of a request
    masking: Masking
    check_greedy: bool
    batch_size: int | None  #: sequences in a forward pass; None: planned from the memory that is free
    max_batch_size: int = MOST_SLOTS
    memory_share: float = SHARE

    def score(
        self, requests: Sequence[LikelihoodRequest], on_records: OnLikelihoods, on_message: OnMessage = warnings.warn
    ) -> None:
        """Score all ``requests``; ``on_records`` is given the results of some as they are done."""
        if not requests:
            return
        batch = ShrinkingBatch(self._size(requests, on_message), self.subject.model.device, on_message)
        for group in _groups(requests, self._samples_of, batch.size):
            started = time.perf_counter()
            masks = [self._draw(request) for request in group]
            values = self._estimates(group, masks, batch)
            greedy = [self._is_greedy(request) for request in group]
            seconds = (time.perf_counter() - started) / len(group)
            on_records(
                [
                    LikelihoodRecord(
                        key=request.key,
                        log_likelihood=value,
                        is_greedy=is_greedy,
                        forwards=len(mask.weight) + (len(request.target) if self.check_greedy else 0),
                        seconds=seconds,
                    )
                    for request, mask, value, is_greedy in zip(group, masks, values, greedy, strict=True)
                ]
            )

    def sample(self, request: LikelihoodRequest) -> Tensor:
        """Single estimates, float64 [samples], whose mean is the log-likelihood in nats."""
        masks = self._draw(request)
        batch = ShrinkingBatch(self._size([request], warnings.warn), self.subject.model.device, warnings.warn)
        return self._sums([request], [masks], batch) * masks.weight

    def _size(self, requests: Sequence[LikelihoodRequest], on_message: OnMessage) -> int:
        """Sequences in a forward pass, of which the longest fits so often."""
        if self.batch_size is not None:
            return self.batch_size
        model, spec = self.subject.model, self.subject.model.network_spec
        workload = Workload(
            policy=resolve_policy("none"),
            decoder=resolve_decoder("confidence"),
            seq=max(len(request.context) + len(request.target) for request in requests),
            gen_length=1,
            block_length=1,
            element_size=model.dtype.itemsize,
        )
        logits = POSITIONS_AT_ONCE * spec.vocabulary * (model.dtype.itemsize + LOGIT_BYTES)
        plan = SlotPlan(
            sequence=workload.bytes(spec),
            free=max(0, free_bytes(model.device) - logits),
            share=self.memory_share,
            most=self.max_batch_size,
        )
        on_message(str(plan))
        return plan.slots

    def _draw(self, request: LikelihoodRequest) -> Masks:
        generator = torch.Generator().manual_seed(request.seed)
        if not request.target:
            return Masks(torch.zeros((0, 0), dtype=torch.bool), torch.zeros(0, dtype=torch.float64))
        return draw_masks(len(request.target), self.samples, self.masking, generator)

    def _samples_of(self, request: LikelihoodRequest) -> int:
        return 1 if len(request.target) <= 1 and self.masking == "count" else self.samples

    def _estimates(
        self, group: Sequence[LikelihoodRequest], masks: Sequence[Masks], batch: ShrinkingBatch
    ) -> list[float]:
        parts = torch.split(self._sums(group, masks, batch), [len(mask.weight) for mask in masks])
        return [
            float((part * mask.weight).mean()) if part.numel() > 0 else 0.0
            for part, mask in zip(parts, masks, strict=True)
        ]

    def _sums(self, group: Sequence[LikelihoodRequest], masks: Sequence[Masks], batch: ShrinkingBatch) -> Tensor:
        """Log-probabilities of the masked tokens, summed; float64 [samples of all requests]."""
        rows = [(request, row) for request, mask in zip(group, masks, strict=True) for row in mask.is_masked]
        sums = batch.run(rows, self._pass)
        return torch.cat(sums) if sums else torch.zeros(0, dtype=torch.float64)

    def _pass(self, rows: Sequence[tuple[LikelihoodRequest, Tensor]]) -> Tensor:
        """One uncached forward over some samples: float64 [rows]."""
        truth, is_valid = pad_prompts([request.context + request.target for request, _ in rows], self.subject.tokenizer)
        is_masked = torch.zeros_like(is_valid)
        for place, (_, row) in enumerate(rows):
            is_masked[place, truth.shape[SEQ] - row.numel() :] = row
        log_probabilities = masked_log_probabilities(self.subject.model, truth, is_valid, is_masked)
        return log_probabilities.sum(dim=SEQ)

    def _is_greedy(self, request: LikelihoodRequest) -> bool:
        """Whether decoding without a cache, the most confident token first, one a step, gives exactly the target."""
        if not self.check_greedy or not request.target:
            return not request.target
        run = generate(
            self.subject.model,
            torch.tensor([request.context]),
            policy="none",
            decoder="confidence",
            gen_length=len(request.target),
        )
        return bool(run.responses[0].tolist() == list(request.target))


def masked_log_probabilities(network: Network, truth: Tensor, is_valid: Tensor, is_masked: Tensor) -> Tensor:
    """Log-probabilities of the masked tokens of ``truth``, given the others: float64 [batch, seq], 0 elsewhere.

    ``truth`` is long [batch, seq], ``is_valid`` and ``is_masked`` bool [batch, seq]; position 0 of a sequence must not
    be masked. On the CPU, whatever the network's device.
    """
    tokens = truth.masked_fill(is_masked, network.network_spec.mask_token_id).to(network.device)
    engine = Engine(network, is_valid.to(network.device))
    result = engine.narrow(tokens, RowSet.of(torch.ones_like(is_valid, device=network.device)))
    places = is_masked.flatten().nonzero()[:, 0]  # long [masked]
    found = torch.zeros(truth.numel(), dtype=torch.float64)
    for some in torch.split(places, POSITIONS_AT_ONCE):
        logits = logits_at(network, result, some.to(network.device))
        wanted = truth.flatten()[some].to(network.device)
        found[some] = logits.log_softmax(VOCABULARY).gather(VOCABULARY, wanted[:, None])[:, 0].double().cpu()
    return found.view_as(truth)


def _groups(
    requests: Sequence[LikelihoodRequest], samples_of: Callable[[LikelihoodRequest], int], batch_size: int
) -> Iterator[list[LikelihoodRequest]]:
    """Requests of similar length, few enough to be lost at a time, with samples to fill a batch; the longest first."""
    group: list[LikelihoodRequest] = []
    for request in sorted(requests, key=lambda request: -len(request.context) - len(request.target)):
        group.append(request)
        if sum(map(samples_of, group)) >= batch_size:
            yield group
            group = []
    if group:
        yield group
