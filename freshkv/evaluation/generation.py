"""Requests to answers: packed into the slots of a batch, each answer handed on as it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import field, frozen

from freshkv.compare.measure import Subject
from freshkv.core.capacity import MOST_SLOTS, SHARE
from freshkv.core.decoder import Decoder
from freshkv.core.generate_many import generate_many
from freshkv.core.policy import CachePolicy
from freshkv.core.request import Request, RequestResult
from freshkv.core.sampling import Sampling
from freshkv.evaluation.answers import cut_answer, end_tokens
from freshkv.evaluation.responses import AnswerRecord
from freshkv.evaluation.settings import DecodingSettings

OnRecords = Callable[[Sequence[AnswerRecord]], None]
OnMessage = Callable[[str], None]


@frozen(kw_only=True)
class GenerationRequest:
    """A prompt to be answered."""

    key: str
    prompt: tuple[int, ...]  #: token ids
    settings: DecodingSettings
    until: tuple[str, ...]
    seed: int

    @property
    def request(self) -> Request:
        """As ``generate_many`` takes it."""
        settings = self.settings
        return Request(self.prompt, gen_length=settings.gen_length, block_length=settings.block_length, seed=self.seed)


@frozen(kw_only=True, eq=False)
class Generator:
    """A model with its policy and decoder."""

    subject: Subject
    policy: CachePolicy
    decoder: Decoder
    stop_at_eos: bool
    batch_size: int | None  #: slots; None: planned from the memory that is free
    max_batch_size: int = MOST_SLOTS
    memory_share: float = SHARE
    _ends: frozenset[int] = field(init=False)

    @_ends.default
    def _find_ends(self) -> frozenset[int]:
        return end_tokens(self.subject.tokenizer, self.subject.model.network_spec)

    def answer(self, requests: Sequence[GenerationRequest], on_records: OnRecords, on_message: OnMessage) -> None:
        """Decode all ``requests``; ``on_records`` is given each answer as it is done."""
        for sampling, queue in queues(requests):
            results = generate_many(
                self.subject.model,
                [each.request for each in queue],
                policy=self.policy,
                decoder=self.decoder,
                batch_size=self.batch_size,
                stop_at_eos=self.stop_at_eos,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
                max_batch_size=self.max_batch_size,
                memory_share=self.memory_share,
                on_message=on_message,
            )
            for result in results:
                on_records([self._record(queue[result.index], result)])

    def _record(self, request: GenerationRequest, result: RequestResult) -> AnswerRecord:
        response, stats = result.response.tolist(), result.stats
        answer = cut_answer(response, self.subject.tokenizer, self._ends, request.until)
        return AnswerRecord(
            key=request.key,
            text=answer.text,
            prompt_tokens=len(request.prompt),
            answer_tokens=answer.tokens,
            response_tokens=len(response),
            forwards=stats.forwards,
            passes=stats.passes,
            rows_computed=stats.rows_computed,
            rows_total=stats.forwards * result.request.columns,
            seconds=stats.seconds,
            batch=stats.slots,
        )


def queues(requests: Sequence[GenerationRequest]) -> Iterator[tuple[Sampling, Sequence[GenerationRequest]]]:
    """Requests whose tokens are drawn alike, the longest canvas first.

    What does not fit the memory then shows at once, and the short ones at the end keep most slots busy.
    """
    groups: dict[Sampling, list[GenerationRequest]] = {}
    for request in requests:
        groups.setdefault(request.settings.sampling, []).append(request)
    for sampling, group in groups.items():
        yield sampling, sorted(group, key=lambda each: -(len(each.prompt) + each.settings.gen_length))
