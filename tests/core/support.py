"""What the property tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import freshkv
from freshkv import StepRecord
from freshkv.core.registry import decoders, policies
from freshkv.testing.specs import configured, configured_any

POLICIES = sorted(policies())
DECODERS = sorted(decoders())
FINAL_DECODERS = [name for name in DECODERS if not decoders()[name].revocable]


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples; five times as many in the thorough profile."""
    return settings(max_examples=count * settings.default.max_examples // 100)


def any_policy() -> st.SearchStrategy[Any]:
    return configured_any(policies())


def any_decoder() -> st.SearchStrategy[Any]:
    return configured_any(decoders())


def any_final_decoder() -> st.SearchStrategy[Any]:
    """Decoders that never take back what they committed."""
    return configured_any({name: decoders()[name] for name in FINAL_DECODERS})


def policies_of(name: str) -> st.SearchStrategy[Any]:
    return configured(policies()[name])


def decoders_of(name: str) -> st.SearchStrategy[Any]:
    return configured(decoders()[name])


def own_steps(run: freshkv.Run, sequence: int) -> list[StepRecord]:
    """The steps that a sequence took part in."""
    return [step for step in run.trace if step.active[sequence]]


def assert_same_confidence(first: Tensor, second: Tensor) -> None:
    """Of positions that both runs know; one of them may have predicted more."""
    known = first.isfinite() & second.isfinite()
    torch.testing.assert_close(first[known], second[known], rtol=1e-4, atol=1e-5)


def left_behind(step: StepRecord, trace: freshkv.Trace) -> Tensor:
    """Masks after an EOS: some policies go on predicting them, which nobody needs."""
    is_response = torch.arange(step.tokens.shape[1]) >= trace.prompt_length
    eos = trace.facts["eos_token_id"]
    ended = (step.tokens == (-1 if eos is None else eos)) & is_response
    return (step.tokens == trace.mask_token_id) & is_response & (ended.long().cumsum(dim=1) > 0)


def assert_same_run(first: freshkv.Run, second: freshkv.Run) -> None:
    """Same tokens, same order, same number of passes; confidences within the tolerance of float32."""
    assert len(first.trace) == len(second.trace)
    for number, (one, other) in enumerate(zip(first.trace, second.trace, strict=True)):
        assert torch.equal(one.committed, other.committed), f"order, step {number}"
        assert torch.equal(one.remasked, other.remasked), f"order, step {number}"
        assert torch.equal(one.tokens, other.tokens), f"tokens, step {number}"
        alive = ~left_behind(one, first.trace)
        assert_same_confidence(one.confidence[alive], other.confidence[alive])
    assert torch.equal(first.sequences, second.sequences)
