"""The compiled summary of logits is torch's, and what is broken stays broken."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import freshkv
from freshkv.core.distribution import Distribution
from freshkv.core.errors import FreshkvError
from freshkv.core.sampling import Sampling
from freshkv.models.compiled import summarise
from tests.models.layouts import needs_compiled

#: few values, so that many are equal; and those that come of broken networks
NUMBERS = (-300.0, -1.0, 0.0, 2.5, 80.0, -math.inf)
BROKEN = (math.inf, math.nan)


def both(logits):
    """By torch, and by the compiled summary."""
    mask_logit = torch.zeros(logits.shape[0])
    return (Distribution(logits, mask_logit, 0, summary) for summary in (None, summarise))


@given(
    values=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=40),
    rows=st.integers(1, 3),
    repeat=st.sampled_from([1, 60]),
)
def test_it_is_what_torch_finds(values, rows, repeat):
    needs_compiled()
    logits = torch.tensor(values).repeat(rows, repeat).roll(1, 0)
    for row in range(rows):  # rows differ
        logits[row] = logits[row].roll(row)
    expected, found = both(logits)
    assert torch.equal(found.best, expected.best)
    assert torch.equal(found._largest[0], expected._largest[0])
    torch.testing.assert_close(found.log_normaliser, expected.log_normaliser, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.probability_of(found.best), expected.probability_of(expected.best))


@given(values=st.lists(st.sampled_from(NUMBERS + BROKEN), min_size=1, max_size=40), where=st.integers(0, 2500))
def test_what_is_no_number_is_seen_and_stays_in_its_row(values, where):
    needs_compiled()
    logits = torch.randn(3, 2500 + len(values), generator=torch.Generator().manual_seed(0))
    logits[1, where : where + len(values)] = torch.tensor(values)
    expected, found = both(logits)
    assert torch.equal(found.log_normaliser.isfinite(), expected.log_normaliser.isfinite())
    assert torch.equal(found.best[::2], expected.best[::2])
    torch.testing.assert_close(found.log_normaliser[::2], expected.log_normaliser[::2])


def test_large_vocabularies_and_parts_of_a_tensor():
    needs_compiled()
    wide = 5 * torch.randn(9, 40_000, generator=torch.Generator().manual_seed(0))
    for logits in (wide, wide[2:7], wide[:, 11:], wide.t()[:50].contiguous().t(), wide[:0]):
        expected, found = both(logits)
        assert torch.equal(found.best, expected.best)
        torch.testing.assert_close(found.log_normaliser, expected.log_normaliser, rtol=2e-6, atol=0)


def test_filters_and_parts_of_a_distribution_keep_it():
    needs_compiled()
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(0))
    sampling, index = Sampling(temperature=0.7, top_k=20), torch.tensor([4, 1])
    plain, own = (sampling.distribution(logits.clone(), 3, summary).take(index) for summary in (None, summarise))
    torch.testing.assert_close(own.probabilities, plain.probabilities)
    assert own._summarised is not None


def test_a_model_that_was_prepacked_so_has_it_and_its_broken_logits_are_an_error():
    needs_compiled()
    model = freshkv.load("tiny-llada", prepacked="compiled")
    assert model.logit_summary is summarise
    assert freshkv.load("tiny-llada", prepacked=True).logit_summary is None
    model.final_norm.weight.data.fill_(torch.nan)
    with pytest.raises(FreshkvError, match="logits are NaN in sequence 0"):
        freshkv.generate(model, torch.tensor([[1, 2, 3]]), gen_length=8, block_length=8)
