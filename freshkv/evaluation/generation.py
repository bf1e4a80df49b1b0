"""Requests to answers, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import field, frozen
from torch import Tensor

from freshkv.compare.measure import Subject, pad_prompts
from freshkv.core.axes import BATCH, SEQ
from freshkv.core.decoder import Decoder
from freshkv.core.generate import generate
from freshkv.core.policy import CachePolicy
from freshkv.core.run import Run
from freshkv.core.trace import StepRecord
from freshkv.evaluation.answers import cut_answer, end_tokens
from freshkv.evaluation.responses import AnswerRecord
from freshkv.evaluation.settings import DecodingSettings

OnRecords = Callable[[Sequence[AnswerRecord]], None]


@frozen(kw_only=True)
class GenerationRequest:
    """A prompt to be answered."""

    key: str
    prompt: tuple[int, ...]  #: token ids
    settings: DecodingSettings
    until: tuple[str, ...]
    seed: int


@frozen(kw_only=True, eq=False)
class Generator:
    """A model with its policy and decoder."""

    subject: Subject
    policy: CachePolicy
    decoder: Decoder
    stop_at_eos: bool
    batch_size: int
    _ends: frozenset[int] = field(init=False)

    @_ends.default
    def _find_ends(self) -> frozenset[int]:
        return end_tokens(self.subject.tokenizer, self.subject.model.network_spec)

    def answer(self, requests: Sequence[GenerationRequest], on_records: OnRecords) -> None:
        """Decode all ``requests``; ``on_records`` is given the answers of each batch as it is done."""
        for batch in batches(requests, self.batch_size):
            on_records(self._answer_batch(batch))

    def _answer_batch(self, batch: Sequence[GenerationRequest]) -> list[AnswerRecord]:
        tokenizer = self.subject.tokenizer
        input_ids, attention_mask = pad_prompts([request.prompt for request in batch], tokenizer)
        run = generate(
            self.subject.model,
            input_ids,
            attention_mask,
            policy=self.policy,
            decoder=self.decoder,
            stop_at_eos=self.stop_at_eos,
            seed=[request.seed for request in batch],
            **batch[0].settings.to_dict(),
        )
        forwards = torch.stack([step.active for step in run.trace]).sum(dim=BATCH).tolist()
        rows = rows_of_sequences(run).tolist()
        records = []
        for place, (request, response) in enumerate(zip(batch, run.responses.tolist(), strict=True)):
            answer = cut_answer(response, tokenizer, self._ends, request.until)
            records.append(
                AnswerRecord(
                    key=request.key,
                    text=answer.text,
                    prompt_tokens=len(request.prompt),
                    answer_tokens=answer.tokens,
                    response_tokens=len(response),
                    forwards=forwards[place],
                    rows_computed=rows[place],
                    rows_total=forwards[place] * (len(request.prompt) + len(response)),
                    seconds=run.stats.seconds / len(batch),
                    batch=len(batch),
                )
            )
        return records


def batches(requests: Sequence[GenerationRequest], batch_size: int) -> Iterator[Sequence[GenerationRequest]]:
    """Requests of the same settings, the longest first: what does not fit the memory shows at once."""
    groups: dict[DecodingSettings, list[GenerationRequest]] = {}
    for request in requests:
        groups.setdefault(request.settings, []).append(request)
    for group in groups.values():
        ordered = sorted(group, key=lambda request: -len(request.prompt))
        for start in range(0, len(ordered), batch_size):
            yield ordered[start : start + batch_size]


def rows_of_sequences(run: Run) -> Tensor:
    """float64 [batch]: rows that each sequence had computed in the whole run, mean over layers, without padding."""
    is_padding = torch.arange(run.sequences.shape[SEQ]) < torch.tensor(run.trace.facts["padding"])[:, None]
    return torch.stack([_rows_of_step(step, ~is_padding) for step in run.trace]).sum(dim=0)


def _rows_of_step(step: StepRecord, is_valid: Tensor) -> Tensor:
    by_layer = step.refreshed[None] if step.refreshed_by_layer is None else step.refreshed_by_layer
    return (by_layer & is_valid).sum(dim=2).double().mean(dim=0)
