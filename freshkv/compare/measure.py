"""One batch decoded by one entry, as records."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from freshkv.compare.costs import shared_cost
from freshkv.compare.experiment import Experiment
from freshkv.compare.prompts import decode_response
from freshkv.compare.records import SequenceRecord
from freshkv.compare.schedule import Work
from freshkv.core.axes import BATCH
from freshkv.core.generate import generate
from freshkv.core.network import Network
from freshkv.core.run import Run


@frozen(eq=False)
class Subject:
    """What is experimented on."""

    model: Network
    tokenizer: PreTrainedTokenizerBase


def decode(subject: Subject, experiment: Experiment, work: Work) -> Run:
    """Run one batch."""
    input_ids, attention_mask = pad_prompts([case.prompt for case in work.cases], subject.tokenizer)
    return generate(
        subject.model,
        input_ids,
        attention_mask,
        policy=work.entry.policy,
        decoder=work.entry.decoder,
        gen_length=experiment.gen_length_of(work.cases[0].task),
        block_length=experiment.block_length,
        stop_at_eos=experiment.stop_at_eos,
        temperature=experiment.temperature,
        top_k=experiment.top_k,
        top_p=experiment.top_p,
        seed=[case.sampling_seed for case in work.cases],
    )


def pad_prompts(prompts: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> tuple[Tensor, Tensor]:
    """Prompts padded on the left: long [batch, prompt], and bool [batch, prompt], False at padding."""
    width = max(map(len, prompts))
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id  # masked out: any id will do
    input_ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return input_ids, torch.arange(width) >= (width - lengths)[:, None]


def to_records(work: Work, run: Run, tokenizer: PreTrainedTokenizerBase) -> list[SequenceRecord]:
    """A record for each sequence; what was measured of the batch is shared out equally."""
    policy, decoder = work.entry.key
    size = len(work.cases)
    responses, produced = run.responses.tolist(), run.produced.tolist()
    forwards = torch.stack([step.active for step in run.trace]).sum(dim=BATCH).tolist()
    records = []
    for place, case in enumerate(work.cases):
        text = decode_response(tokenizer, responses[place][: produced[place]])
        records.append(
            SequenceRecord(
                task=case.task.name,
                seed=case.seed,
                problem=case.index,
                policy=policy,
                decoder=decoder,
                correct=bool(case.task.check(case.problem, text)),
                text=text,
                response=tuple(responses[place]),
                canvas=run.sequences.shape[1],
                forwards=forwards[place],
                rows_computed=run.stats.rows_computed / size,
                tokens_produced=produced[place],
                seconds=run.stats.seconds / size,
                peak_bytes=run.stats.peak_bytes,
                cache_bytes=run.stats.cache_bytes,
                batch=size,
                cost=shared_cost(run.stats.cost, size),
                repeat=work.repeat,
            )
        )
    return records
