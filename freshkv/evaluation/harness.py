"""The model that lm-eval runs: its requests in, answers and log-likelihoods out.

Only this file and those that start an evaluation import lm-eval.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import lm_eval.models  # noqa: F401 - first: lm-eval fills its list of models only while that is empty
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from torch import Tensor

from freshkv.compare.measure import Subject
from freshkv.evaluation.identity import count_occurrences
from freshkv.evaluation.metrics import GenerationTotals
from freshkv.evaluation.model_args import ModelOptions
from freshkv.evaluation.processes import Processes
from freshkv.evaluation.prompts import apply_chat_template, encode_text
from freshkv.evaluation.session import EvaluationSession, Question, identity_of, load_subject


@register_model("freshkv")
class FreshkvLM(TemplateLM):  # type: ignore[misc]
    """A LLaDA, Dream or plugin model with a cache policy and a decoder, for lm-eval's tasks.

    Arguments are those of ``ModelOptions``, as lm-eval's ``--model_args`` gives them. ``subject`` is a model that is
    loaded already, with its tokenizer; ``identity`` is a hash of it. Raises InputError, SpecError, UnknownNameError or
    CheckpointError.
    """

    def __init__(
        self,
        *,
        subject: Subject | None = None,
        processes: Processes | None = None,
        identity: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        options = ModelOptions.read({**arguments, "device": available_device(arguments.get("device"))})
        self.processes = Processes.join(tensor_parallel=options.tensor_parallel) if processes is None else processes
        subject = load_subject(options, self.processes) if subject is None else subject
        if identity is None:
            identity = self.processes.from_first(lambda: identity_of(options))
        self.session = EvaluationSession(subject, options, self.processes, identity)
        self.tokenizer = subject.tokenizer
        self._rank, self._world_size = self.processes.rank, self.processes.size
        self._device = subject.model.device
        self._others = GenerationTotals()

    # Requests

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers to ``requests``, cut at end tokens and stop strings."""
        questions = [
            Question(text=instance.args[0], arguments=instance.args[1], repeat=repeat)
            for instance, repeat in zip(requests, repetitions(requests), strict=True)
        ]
        texts = [record.text for record in self.session.answer(questions, quiet=disable_tqdm)]
        self._remember("generate_until", [instance.args for instance in requests], texts)
        return texts

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        """For each request (texts, context ids, target ids): log-likelihood in nats, and whether it is greedy."""
        pairs = [(context, target) for _, context, target in requests]
        records = self.session.score(pairs, quiet=bool(options.get("disable_tqdm")))
        results = [(record.log_likelihood, record.is_greedy) for record in records]
        self._remember("loglikelihood", [texts for texts, _, _ in requests], results)
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, in nats; one that is too long piece by piece."""
        pieces = [self._windows(instance.args[0]) for instance in requests]
        records = iter(self.session.score([piece for text in pieces for piece in text], quiet=disable_tqdm))
        totals = [float(sum(next(records).log_likelihood for _ in text)) for text in pieces]
        self._remember("loglikelihood_rolling", [instance.args for instance in requests], totals)
        return totals

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.session.longest_target,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    def _remember(self, kind: str, arguments: Sequence[Any], results: Sequence[Any]) -> None:
        """For lm-eval's ``--use_cache``."""
        for each, result in zip(arguments, results, strict=True):
            self.cache_hook.add_partial(kind, each, result)

    # Texts

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Token ids of ``string``."""
        return encode_text(self.tokenizer, string, add_special_tokens)

    @property
    def eot_token_id(self) -> int:
        """End of text."""
        eos = self.session.subject.model.network_spec.eos_token_id
        return int(self.tokenizer.eos_token_id if eos is None else eos)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: BOS, or end of text where there is none."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as a prompt."""
        return apply_chat_template(self.tokenizer, chat_history, add_generation_prompt=add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's own cache of requests."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    # Several processes

    def all_gather(self, tensor: Tensor) -> Tensor:
        """``tensor`` of all processes."""
        return self.processes.gather_tensors(tensor)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """``obj`` of all processes on process ``dst``; None on the others.

        lm-eval calls this in every process when its requests are done, whichever kinds they were, so the totals of
        the other processes come along.
        """
        own = None if self.rank == dst else self.session.totals
        gathered = self.processes.gather_objects((obj, own))
        if self.rank != dst:
            return None
        self._others = sum((totals for _, totals in gathered if totals is not None), GenerationTotals())
        return [value for value, _ in gathered]

    def barrier(self) -> None:
        """Wait for all processes."""
        self.processes.wait()

    # What is written beside the scores

    @property
    def totals(self) -> GenerationTotals:
        """Of all answers so far, of all processes once lm-eval has gathered them."""
        return self.session.totals + self._others

    def get_model_info(self) -> dict[str, Any]:
        """Options and measurements, which lm-eval puts into the ``config`` of its results."""
        return {"freshkv": {**self.session.describe(), "generation": self.totals.to_dict()}}


def available_device(device: Any) -> Any:
    """``device``, or the CPU where lm-eval's own default names a GPU and there is none."""
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        warnings.warn(f"There is no {device} here; the model runs on the CPU.", stacklevel=3)
        return "cpu"
    return device


def repetitions(requests: Sequence[Instance]) -> list[int]:
    """Which repetition each request is, from 0: one that a task wants several times is drawn anew each time.

    Where processes have different numbers of requests, lm-eval repeats the last one more often than its task wants, to
    make them equal; those count as repetitions that are there already.
    """
    occurrences = count_occurrences([id(instance) for instance in requests])
    return [
        occurrence % max(instance.repeats or 1, 1) for instance, occurrence in zip(requests, occurrences, strict=True)
    ]
