"""Networks that do not fit are refused before anything is allocated; those that fit are the same every time."""

from __future__ import annotations

import pytest
import torch

from benchmarks.networks import GIB, LLADA_8B, SMALL, Shape, TooLargeError, make_network, make_prompt, require_memory

TINY = Shape(name="tiny", width=16, layers=2, heads=2, feed_forward=24, vocabulary=30)


def test_a_network_too_large_for_memory_is_refused_with_what_it_needs():
    with pytest.raises(TooLargeError, match=r"llada-8b in float32 needs 29\.\d GiB .* 24\.0 GiB are free .* bfloat16"):
        require_memory(LLADA_8B, "float32", 768, available=24 * GIB)


def test_a_network_that_fits_is_not_refused():
    require_memory(LLADA_8B, "bfloat16", 768, available=24 * GIB)
    require_memory(SMALL, "float32", 8 * 5120, available=8 * GIB)


def test_caches_count():
    with pytest.raises(TooLargeError):
        require_memory(LLADA_8B, "bfloat16", 16 * 768, available=24 * GIB)


def test_shapes_count_their_parameters():
    network = make_network(TINY, "float32")
    matrices = sum(parameter.numel() for parameter in network.parameters() if parameter.ndim == 2)
    assert matrices == TINY.parameters


def test_weights_depend_on_the_seed_alone_and_no_two_rows_are_equal():
    first, again, other = (make_network(TINY, "float32", seed) for seed in (0, 0, 1))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert len(first.head.weight.unique(dim=0)) == TINY.vocabulary


def test_prompts_have_no_mask():
    assert int(make_prompt(TINY, 200).max()) < TINY.config().mask_token_id
