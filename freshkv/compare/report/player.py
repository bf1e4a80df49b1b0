"""Traces as the player of the page wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from freshkv.compare.experiment import BASELINE
from freshkv.compare.report.payload import pack, visible
from freshkv.compare.report.sources import Source
from freshkv.compare.traces import SavedTrace
from freshkv.core.trace import StepRecord


def player_cases(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Every problem that has traces, with its runs packed. Empty: there is nothing to play."""
    return [case for source in sources for case in _cases_of(source)]


def _cases_of(source: Source) -> list[dict[str, Any]]:
    groups: dict[tuple[str, int, int], list[SavedTrace]] = {}
    for saved in source.traces:
        groups.setdefault(saved.case, []).append(saved)
    order = {entry: place for place, entry in enumerate(source.entries)}
    cases = []
    for (task, seed, problem), group in sorted(groups.items(), key=lambda item: source.case_order(item[0])):
        runs = sorted((saved for saved in group if saved.entry in order), key=lambda saved: order[saved.entry])
        if runs:
            title = f"{task}, problem {problem}" + f", seed {seed}" * source.several_seeds
            cases.append(
                {
                    "name": f"{source.name}: {title}" if source.one_of_several else title,
                    "problem": f"Prompt: {runs[0].prompt} \N{EM DASH} right answer: {runs[0].answer}",
                    "start": _start([saved.entry[0] for saved in runs]),
                    "entries": [
                        {"name": source.entry_name(saved.entry), "packed": pack(run_data(saved, source.verdict(saved)))}
                        for saved in runs
                    ],
                }
            )
    return cases


def _start(policies: Sequence[str]) -> tuple[int, int]:
    """Which two runs are shown first: the uncached one and the last of the same decoder."""
    left = policies.index(BASELINE) if BASELINE in policies else 0
    following = [place for place in range(left + 1, len(policies)) if policies[place] == BASELINE]
    return left, (following[0] if following else len(policies)) - 1


def run_data(saved: SavedTrace, verdict: str) -> dict[str, Any]:
    """One run as JSON values: the canvas before the first pass, and what each pass changed."""
    trace = saved.trace
    words = {token: visible(word) for token, word in saved.words.items() if token != trace.mask_token_id}
    first = trace[0].tokens[0].tolist()
    canvas = [words.get(token) if place < trace.prompt_length else None for place, token in enumerate(first)]
    steps, before = [], canvas
    for step in trace:
        after = [*canvas[: trace.prompt_length], *_response(step, trace.prompt_length, words)]
        steps.append(
            {
                **_rows(step),
                "set": [[place, word] for place, word in enumerate(after) if word != before[place]],
                "committed": _places(step.committed[0].tolist()),
                "remasked": _places(step.remasked[0].tolist()),
                "added": _places(step.added[0].tolist()),
                "confidence": [_percent(value) for value in step.confidence[0].tolist()],
            }
        )
        before = after
    return {
        "words": canvas,
        "prompt_length": trace.prompt_length,
        "layers": len(trace[0].rows_by_layer),
        "same_in_all_layers": all(step.refreshed_by_layer is None for step in trace),
        "verdict": verdict,
        "steps": steps,
    }


def _response(step: StepRecord, prompt_length: int, words: Mapping[int, str]) -> list[str | None]:
    return [words.get(token) for token in step.tokens[0, prompt_length:].tolist()]


def _rows(step: StepRecord) -> dict[str, Any]:
    """Which rows were refreshed, a text of 0 and 1 for each layer; one text where all layers are alike."""
    masks = [step.refreshed] if step.refreshed_by_layer is None else list(step.refreshed_by_layer)
    return {
        "rows": ["".join("1" if fresh else "0" for fresh in mask[0].tolist()) for mask in masks],
        "rows_computed": step.rows_computed,
        "shadow_rows": step.shadow_rows,
        "probed": max(step.probed_by_layer, default=0),
    }


def _places(mask: list[bool]) -> list[int]:
    return [place for place, is_set in enumerate(mask) if is_set]


def _percent(confidence: float) -> int | None:
    """Whole percent of a probability. None: never predicted, or a score on another scale (negative entropy)."""
    return round(100 * confidence) if math.isfinite(confidence) and 0 <= confidence <= 1 else None
