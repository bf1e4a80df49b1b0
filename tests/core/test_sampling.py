"""Temperature, top-k and top-p against transformers' own warpers, and draws against the distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from freshkv.core.sampling import Sampling

MASK = 6


def some_logits(seed: int, rows: int = 5, vocabulary: int = 12) -> torch.Tensor:
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    logits[:, MASK] = -30.0
    return logits


@given(st.integers(0, 1000), st.floats(0.2, 2.0), st.integers(1, 11), st.floats(0.1, 0.99))
def test_filters_agree_with_transformers(seed: int, temperature: float, top_k: int, top_p: float) -> None:
    logits = some_logits(seed)
    warpers = LogitsProcessorList(
        [TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k), TopPLogitsWarper(top_p)]
    )
    without_mask = logits.index_fill(1, torch.tensor([MASK]), -torch.inf)
    expected = warpers(torch.zeros(5, 1, dtype=torch.long), without_mask)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    distribution = sampling.distribution(logits.clone(), MASK)
    torch.testing.assert_close(distribution.logits.softmax(1), expected.softmax(1))


def test_the_mask_token_keeps_its_share_but_is_never_drawn() -> None:
    logits = torch.zeros(3, 4)
    logits[:, 2] = 5.0
    distribution = Sampling(temperature=1.0).distribution(logits.clone(), 2)
    share = torch.tensor(5.0).exp() / (3 + torch.tensor(5.0).exp())
    torch.testing.assert_close(distribution.probabilities[:, 2], share.expand(3))
    torch.testing.assert_close(distribution.probabilities.sum(1), torch.ones(3))
    drawn = torch.stack([distribution.sample(torch.full((3,), number)) for number in (0.0, 0.4, 0.9999999)])
    assert not (drawn == 2).any()
    assert not (distribution.best == 2).any()


def test_top_k_of_one_is_greedy_even_if_the_mask_token_leads() -> None:
    logits = some_logits(3)
    logits[:, MASK] = 40.0
    distribution = Sampling(temperature=0.7, top_k=1).distribution(logits.clone(), MASK)
    proper = logits.index_fill(1, torch.tensor([MASK]), -torch.inf).argmax(1)
    assert torch.equal(distribution.sample(torch.tensor([0.1, 0.5, 0.9, 0.99, 0.0])), proper)


def test_draws_follow_the_distribution() -> None:
    logits = some_logits(1, rows=1)
    distribution = Sampling(temperature=1.3).distribution(logits.clone(), MASK)
    count = 20_000
    uniform = (torch.arange(count) + 0.5) / count  # evenly spread: frequencies are then exact to 1/count
    repeated = Sampling(temperature=1.3).distribution(logits.repeat(count, 1), MASK)
    frequency = torch.bincount(repeated.sample(uniform), minlength=12) / count
    torch.testing.assert_close(frequency, distribution.logits.softmax(1)[0], atol=2e-4, rtol=0)


def test_entropy_and_margin_of_known_distributions() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
    logits[0, 3] = -torch.inf
    distribution = Sampling().distribution(logits, 3)
    torch.testing.assert_close(distribution.entropy, torch.tensor([1.5]) * torch.tensor(2.0).log())
    torch.testing.assert_close(distribution.margin, torch.tensor([0.25]))


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}]
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]
