"""A model that answers and scores texts: encodes them, runs what is not known yet, and keeps every result."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from attrs import field, frozen

from freshkv.compare.measure import Subject
from freshkv.compare.origins import origin_of
from freshkv.compare.provenance import device_name, hash_model
from freshkv.compare.threads import cpu_threads
from freshkv.core.capacity import MOST_SLOTS, SHARE
from freshkv.core.errors import InputError
from freshkv.core.version import VERSION
from freshkv.evaluation.generation import GenerationRequest, Generator
from freshkv.evaluation.identity import key_of, seed_of
from freshkv.evaluation.likelihood import Estimator, LikelihoodRequest
from freshkv.evaluation.metrics import GenerationTotals
from freshkv.evaluation.model_args import AUTO, ModelOptions
from freshkv.evaluation.processes import Processes
from freshkv.evaluation.progress import EvaluationProgress
from freshkv.evaluation.prompts import encode_text, longest_sequence, truncate_left
from freshkv.evaluation.responses import AnswerRecord, LikelihoodRecord, Record, ResponseStore, known
from freshkv.evaluation.settings import settings_of
from freshkv.models import load
from freshkv.models.tokenizer import load_tokenizer

#: of a model that has no limit
UNLIMITED = 2**31


@frozen(kw_only=True)
class Question:
    """A text to be answered."""

    text: str
    arguments: Mapping[str, Any]  #: the task's generation arguments
    repeat: int = 0  #: the same text again is drawn anew


def load_subject(options: ModelOptions, processes: Processes) -> Subject:
    """Model and tokenizer, on this process's own device where there are several processes."""
    if options.tensor_parallel:
        model = load(options.pretrained, dtype=options.dtype, tensor_parallel=True)
    else:
        device = options.device if processes.device is None else processes.device
        model = load(options.pretrained, device=device, dtype=options.dtype)
    return Subject(model, load_tokenizer(options.pretrained))


def identity_of(options: ModelOptions) -> str:
    """A hash of the checkpoint where results are kept: it takes a while, and nothing else needs it."""
    return options.pretrained if options.responses is None else hash_model(options.pretrained)


@frozen(eq=False, slots=False)
class EvaluationSession:
    """One model with one set of options, in one process."""

    subject: Subject
    options: ModelOptions
    processes: Processes
    identity: str  #: of the checkpoint: a hash, or its name where nothing is kept
    _told: set[str] = field(factory=set, init=False)
    _answers: dict[str, AnswerRecord] = field(factory=dict, init=False)

    # What it does

    def answer(self, questions: Sequence[Question], *, quiet: bool = False) -> list[AnswerRecord]:
        """The answers, in order. Raises InputError before anything is decoded."""
        requests = [self._generation_request(question) for question in questions]
        options = self.options
        generator = Generator(
            subject=self.subject,
            policy=options.policy,
            decoder=options.decoder,
            stop_at_eos=options.stop_at_eos,
            **self._batching,
        )
        records = self._run("answers", requests, AnswerRecord, generator.answer, quiet=quiet)
        self._answers.update({record.key: record for record in records})
        return records

    def score(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, quiet: bool = False
    ) -> list[LikelihoodRecord]:
        """Log-likelihoods of targets after their contexts, both token ids, in order."""
        requests = [self._likelihood_request(context, target) for context, target in pairs]
        options = self.options
        estimator = Estimator(
            subject=self.subject,
            samples=options.mc_samples,
            masking=options.mc_masking,
            check_greedy=options.check_greedy,
            **self._batching,
        )
        return self._run("log-likelihoods", requests, LikelihoodRecord, estimator.score, quiet=quiet)

    @property
    def _batching(self) -> dict[str, Any]:
        """How many sequences go together."""
        size, most, processes = self.options.batch_size, self.options.max_batch_size, self.processes.size
        # processes that compute on the CPU share its memory
        mine = 1 / processes if self.subject.model.device.type == "cpu" else 1.0
        return {
            "batch_size": None if size == AUTO else size,
            "max_batch_size": MOST_SLOTS if most is None else most,
            "memory_share": SHARE * mine,
        }

    # What it knows

    @property
    def max_length(self) -> int | None:
        """Tokens of prompt and response together; None: no limit."""
        given = self.options.max_length
        return longest_sequence(self.subject.model) if given is None else given

    @property
    def longest_target(self) -> int:
        """Tokens of a target, which needs a token before it."""
        return UNLIMITED if self.max_length is None else self.max_length - 1

    @property
    def totals(self) -> GenerationTotals:
        """Of all answers so far, those that an earlier run left included."""
        return GenerationTotals.of(self._answers.values())

    def describe(self) -> dict[str, Any]:
        """Options and environment, JSON values."""
        policy, decoder, model = self.options.policy, self.options.decoder, self.subject.model
        return {
            "version": VERSION,
            "options": self.options.to_dict(),
            "origins": {part.name: origin_of(type(part)) for part in (policy, decoder)},
            "device": device_name(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "processes": self.processes.size * self.processes.parts,
        }

    # From texts to requests

    def _generation_request(self, question: Question) -> GenerationRequest:
        settings = settings_of(question.arguments, self.options, self.tell)
        decoding = settings.decoding
        prompt = self._fit(encode_text(self.subject.tokenizer, question.text), decoding.gen_length)
        return GenerationRequest(
            key=key_of("answer", self._facts, decoding.to_dict(), settings.until, prompt, question.repeat),
            prompt=prompt,
            settings=decoding,
            until=settings.until,
            seed=seed_of(self.options.seed, prompt, question.repeat),
        )

    def _likelihood_request(self, context: Sequence[int], target: Sequence[int]) -> LikelihoodRequest:
        if len(target) > self.longest_target:
            raise InputError(
                f"A target of the task has {len(target)} tokens; with max_length {self.max_length} the model holds "
                f"{self.longest_target}. Set max_length higher if the model allows it."
            )
        kept, target = self._fit(list(context), len(target)), tuple(target)
        options = self.options
        method = (options.mc_samples, options.mc_masking, options.check_greedy)
        return LikelihoodRequest(
            key=key_of("likelihood", self._facts, method, kept, target),
            context=kept,
            target=target,
            seed=seed_of(options.seed, kept, target),
        )

    def _fit(self, ids: list[int], response: int) -> tuple[int, ...]:
        room = len(ids) if self.max_length is None else self.max_length - response
        prompt = truncate_left(ids, room)
        if prompt.dropped > 0:
            self.tell(
                f"Prompts longer than {room} tokens are cut at the left (max_length {self.max_length}, response "
                f"{response}); the first to be cut loses {prompt.dropped} of {len(ids)} tokens."
            )
        return prompt.ids

    @cached_property
    def _facts(self) -> list[Any]:
        """What every result and its measurements depend on, besides the request."""
        options, model = self.options, self.subject.model
        return [
            *(VERSION, torch.__version__, self.identity),
            *(options.policy.spec, options.decoder.spec, options.stop_at_eos, options.seed, options.batch_size),
            *(str(model.dtype), device_name(model.device)),
            *((self.processes.parts,) if self.processes.parts > 1 else ()),
        ]

    # Running and keeping them

    def _run(self, what: str, requests: Sequence[Any], kind: type[Any], run: Any, *, quiet: bool) -> list[Any]:
        store = None if self.options.responses is None else ResponseStore(self.options.responses)
        # read once: the first process writes while the others may still be reading, and all must do the same
        found = self.processes.from_first(lambda: {} if store is None else known(store.read(), kind))
        wanted = {request.key: request for request in requests}
        left = [request for key, request in wanted.items() if key not in found]
        progress = EvaluationProgress(what, len(left), visible=self.processes.is_first and not quiet)
        if len(left) < len(wanted):
            progress.say(f"{len(wanted) - len(left)} of {len(wanted)} {what} are in {self.options.responses} already.")

        def keep(records: Sequence[Record]) -> None:
            if store is not None and self.processes.part == 0:
                store.append(records)
            found.update({record.key: record for record in records})
            progress.advance(len(records))

        with progress, cpu_threads(self.options.pretrained, self.options.threads):
            run(left, keep, progress.say)
        return [found[request.key] for request in requests]

    def tell(self, message: str) -> None:
        """Warn once, in the first process."""
        if message not in self._told and self.processes.is_first:
            warnings.warn(message, stacklevel=2)
        self._told.add(message)
