"""Traces and drifts of single sequences, in a folder beside a results file: what the report plays and maps."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from freshkv.compare.cases import Case, CaseKey
from freshkv.compare.drift import Drift
from freshkv.core.errors import ResultsError
from freshkv.core.trace import StepRecord, Trace

EntryKey = tuple[str, str]

_TRACE = ".trace.safetensors"
_DRIFT = ".drift.safetensors"
_FACTS = "comparison"  #: key of what is added to the facts of a trace


@frozen(kw_only=True, eq=False)
class SavedTrace:
    """One sequence of a comparison, step by step."""

    entry: EntryKey  #: spec strings of policy and decoder
    case: CaseKey  #: task, seed, index of the problem
    prompt: str  #: the problem as text
    answer: str  #: the right one
    words: Mapping[int, str]  #: the text of every token id that occurs
    trace: Trace  #: of a batch of one, without padding


@frozen(kw_only=True, eq=False)
class SavedDrift:
    """The drift of one sequence of a comparison."""

    entry: EntryKey  #: spec strings of policy and decoder
    case: CaseKey  #: task, seed, index of the problem
    drift: Drift


def traces_folder(results: str | Path) -> Path:
    """Where the traces and drift files of a results file lie: ``RESULTS.traces`` beside it."""
    path = Path(results)
    return path.with_name(path.name + ".traces")


def trace_path(results: str | Path, entry: EntryKey, case: CaseKey) -> Path:
    """The file of one sequence's trace; the same sequence always has the same name."""
    return traces_folder(results) / (_stem(entry, case) + _TRACE)


def drift_path(results: str | Path, entry: EntryKey, case: CaseKey) -> Path:
    """The file of one sequence's drift, likewise."""
    return traces_folder(results) / (_stem(entry, case) + _DRIFT)


def _stem(entry: EntryKey, case: CaseKey) -> str:
    """Readable and, by a hash of the whole spec strings, the sequence's own."""
    names = [spec.partition(":")[0] for spec in entry]
    readable = "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in (*case, *names))
    return f"{readable}-{hashlib.sha256(json.dumps([*case, *entry]).encode()).hexdigest()[:8]}"


def save_trace(results: str | Path, case: Case, trace: Trace, place: int, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write the trace of sequence ``place`` of a batch beside ``results``; it is complete or not there at all.

    Raises ResultsError if it cannot be written.
    """
    alone = cut_sequence(trace, place)
    tokens = sorted({token for step in alone for token in step.tokens[0].tolist()})
    facts = {
        "case": list(case.key),
        "prompt": case.problem.prompt,
        "answer": case.problem.answer,
        "words": {token: str(tokenizer.decode([token])) for token in tokens},
    }
    path = trace_path(results, (trace.facts["policy"], trace.facts["decoder"]), case.key)
    _make_folder(path.parent)
    evolve(alone, facts={**alone.facts, _FACTS: facts}).save(path)
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(
            f"Cannot make the folder {folder} for traces: {error.strerror}. "
            "Choose another output file, or leave traces out with --traces 0."
        ) from error


def save_drift(results: str | Path, case: Case, drift: Drift) -> Path:
    """Write the drift of one sequence beside ``results``, likewise."""
    path = drift_path(results, (drift.policy, drift.decoder), case.key)
    _make_folder(path.parent)
    evolve(drift, facts={**drift.facts, _FACTS: {"case": list(case.key)}}).save(path)
    return path


def save_beside(results: str | Path, name: str, content: bytes) -> None:
    """Write a file that another process left beside results of its own, under its name; likewise.

    Raises ResultsError if it cannot be written.
    """
    path = traces_folder(results) / name
    _make_folder(path.parent)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ResultsError(f"Cannot write {path}: {error.strerror}. Choose another folder.") from error


def load_traces(results: str | Path) -> tuple[SavedTrace, ...]:
    """All traces beside ``results``, by name; none where nothing was saved. Raises ResultsError for a damaged file."""
    return tuple(_load_trace(path) for path in sorted(traces_folder(results).glob(f"*{_TRACE}")))


def load_drifts(results: str | Path) -> tuple[SavedDrift, ...]:
    """All drifts beside ``results``, likewise."""
    return tuple(_load_drift(path) for path in sorted(traces_folder(results).glob(f"*{_DRIFT}")))


def _load_trace(path: Path) -> SavedTrace:
    trace = Trace.load(path)
    with _of_a_comparison(path):
        facts = trace.facts[_FACTS]
        return SavedTrace(
            entry=(trace.facts["policy"], trace.facts["decoder"]),
            case=_case_key(facts),
            prompt=facts["prompt"],
            answer=facts["answer"],
            words={int(token): word for token, word in facts["words"].items()},
            trace=trace,
        )


def _load_drift(path: Path) -> SavedDrift:
    drift = Drift.load(path)
    with _of_a_comparison(path):
        return SavedDrift(entry=(drift.policy, drift.decoder), case=_case_key(drift.facts[_FACTS]), drift=drift)


def _case_key(facts: Mapping[str, Any]) -> CaseKey:
    task, seed, problem = facts["case"]
    return str(task), int(seed), int(problem)


@contextmanager
def _of_a_comparison(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(
            f"{path} was not saved by a comparison ({type(error).__name__} {error}). Remove it from the folder."
        ) from error


def cut_sequence(trace: Trace, place: int) -> Trace:
    """The trace of sequence ``place`` alone: without padding, and without steps behind its last.

    What a batch has only as a sum, shadow rows and probes, is shared out equally among the sequences of the step.
    """
    padding = trace.facts["padding"][place]
    facts = {**trace.facts, "padding": [0], "seeds": [trace.facts["seeds"][place]]}
    steps = tuple(_cut_step(step, place, padding) for step in trace if bool(step.active[place]))
    return Trace(steps, trace.prompt_length - padding, trace.mask_token_id, facts)


def _cut_step(step: StepRecord, place: int, padding: int) -> StepRecord:
    def own(tensor: Tensor) -> Tensor:
        return tensor[place : place + 1, padding:].clone()

    sequences = int(step.active.sum())
    shadow = round(step.shadow_rows / sequences)
    layers = len(step.rows_by_layer)
    by_layer = step.refreshed_by_layer
    layer_masks = [own(step.layer(layer)) for layer in range(layers)]  # bool [1, seq] each
    return evolve(
        step,
        tokens=own(step.tokens),
        committed=own(step.committed),
        remasked=own(step.remasked),
        refreshed=own(step.refreshed),
        added=own(step.added),
        predicted=own(step.predicted),
        confidence=own(step.confidence),
        keys=step.keys[place : place + 1].clone(),
        active=step.active[place : place + 1].clone(),
        rows_by_layer=tuple(int(mask.sum()) + shadow for mask in layer_masks),
        shadow_rows=shadow,
        probed_by_layer=tuple(round(count / sequences) for count in step.probed_by_layer),
        watched_by_layer=tuple(round(count / sequences) for count in step.watched_by_layer),
        refreshed_by_layer=None if by_layer is None else torch.stack(layer_masks),
    )
