"""``dpad``: which masks survive, and what is computed and visible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch

import freshkv
from freshkv.testing import NetworkShape, PolicyContract, asked, columns, example_problem, tiny_network
from freshkv.testing.networks import FAMILIES, Family
from freshkv_dpad import DPad
from freshkv_dpad.suffix_dropout import survivors

Cache = Literal["none", "prefix", "dual"]
CACHES = ("none", "prefix", "dual")
UNEVEN = "threshold:threshold=0.2"


@pytest.mark.parametrize(("window", "k", "a"), [(256, 4.0, 2.0), (128, 3.0, 2.3), (512, 3.0, 1.6), (7, 4.0, 2.0)])
def test_the_number_of_survivors_follows_the_density(window: int, k: float, a: float) -> None:
    kept = survivors(window, k, a).long().cumsum(dim=0)
    distance = torch.arange(window, dtype=torch.float64)
    density = a * torch.exp(-((k * distance / window) ** 2) / 2) / math.sqrt(2 * math.pi)
    assert bool(((kept - density.clamp(max=1).cumsum(dim=0)).abs() <= 0.5 + 1e-9).all())


def test_survivors_thin_out_with_distance() -> None:
    quarters = survivors(256, 4.0, 2.0).view(4, 64).sum(dim=1).tolist()
    assert quarters == sorted(quarters, reverse=True)
    assert quarters[0] > 30
    assert quarters[3] <= 1


def test_a_flat_density_of_one_keeps_the_window() -> None:
    assert bool(survivors(50, 0.0, 2.51).all())
    assert not bool(survivors(50, 0.0, 0.0).any())


@pytest.mark.parametrize("cache", CACHES)
def test_what_is_dropped_is_not_visible(cache: Cache) -> None:
    policy = DPad(window=6, k=4, cache=cache)
    alive = columns(survivors(6, 4.0, 2.0))
    assert 0 < len(alive) < 6
    for view, selection in asked(policy, example_problem(), UNEVEN):
        for sequence in range(view.shape[0]):
            end = columns(view.in_block[sequence])[-1] + 1
            behind = [end + distance for distance in alive if end + distance < 18]
            assert columns(selection.visible[sequence]) == [*range(end), *behind]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_dropped_is_not_computed_after_the_first_step(family: Family, cache: Cache) -> None:
    policy = DPad(window=6, k=4, cache=cache)
    alive = columns(survivors(6, 4.0, 2.0))
    trace = example_problem(family).alone(0).run(policy).trace
    for number, step in enumerate(trace):
        start = 6 + number // 4 * 4
        end, opening = start + 4, number % 4 == 0
        behind = [end + distance for distance in alive if end + distance < 18]
        first, suffix = {
            "none": (0, behind),
            "prefix": (0 if opening else start, behind),
            "dual": (0 if opening else start, behind if opening else []),
        }[cache]
        expected = {*range(first, end), *suffix}
        if family == "dream":
            own: set[int] = set() if cache == "dual" and not opening else expected
            expected = own | set(range(start - 1, end - 1))
        dropped = {*range(18)} - expected if number == 0 else set()
        assert columns(step.refreshed[0]) == sorted(expected | dropped)
        assert columns(step.added[0]) == sorted(dropped)


@pytest.mark.parametrize(("tokens_per_step", "besides"), [(1, 52_800), (4, 19_152)])
def test_the_full_first_step_costs_what_the_readme_says(tokens_per_step: int, besides: int) -> None:
    network = tiny_network(NetworkShape(layers=1, heads=1, kv_heads=1, head_width=4))
    trace = freshkv.generate(
        network,
        torch.ones(1, 256, dtype=torch.long),
        policy=DPad(),
        decoder=f"confidence:tokens_per_step={tokens_per_step}",
        gen_length=512,
        block_length=32,
    ).trace
    added = int(trace[0].added.sum())
    assert (trace[0].rows_computed, added) == (768, 416)
    assert sum(step.rows_computed for step in trace) == besides + added
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for number in ("768", "416", f"{besides:,}", f"({100 * added / besides:.1f} %)"):
        assert number in readme


def test_hidden_masks_change_the_run() -> None:
    near, whole = (example_problem().run(DPad(window=window, k=0, a=3)) for window in (1, 256))
    assert not torch.equal(near.trace[0].confidence, whole.trace[0].confidence)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_with_nothing_dropped_it_is_the_cache_below_it(cache: Cache) -> None:
    case, policy = example_problem(), DPad(k=0, a=3, cache=cache)
    run, plain = case.run(policy, UNEVEN), case.run(cache, UNEVEN)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in plain.trace]


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = DPad
    exact = DPad(k=0, a=2.51, cache="none")
