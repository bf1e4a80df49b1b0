"""Rates count the operations they are told, on both clocks."""

from __future__ import annotations

import torch

from benchmarks.networks import Shape
from benchmarks.rates import product_rate, rate_of, step_rates

TINY = Shape(name="tiny", width=16, layers=2, heads=2, feed_forward=24, vocabulary=30)


def test_a_rate_is_operations_over_time():
    work = torch.ones(64, 64)
    once = rate_of(lambda: work @ work, 1000, least_seconds=0.01)
    assert once.wall > 0
    assert once.processor > 0


def test_more_weights_are_more_operations_in_more_time():
    """Were the operations of several weights not counted, the rate would fall with their number."""
    one, many = (product_rate(32, 64, 64, "float32", weights).processor for weights in (1, 64))
    assert many > one / 8


def test_the_products_of_a_step_are_measured_each():
    assert set(step_rates(TINY, rows=4, predicted=2, dtype="float32")) == {"projections", "feed_forward", "head"}
