"""``dpad``: which masks survive, and what is computed and visible."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor

from freshkv import Selection, StepView
from freshkv.testing import NetworkShape, PolicyContract, Problem, wrapped
from freshkv.testing.networks import FAMILIES, Family
from freshkv_dpad import DPad
from freshkv_dpad.suffix_dropout import survivors

Cache = Literal["none", "prefix", "dual"]

POLICIES = (DPad(window=6), DPad(window=6, k=3, cache="none"), DPad(window=3, a=1, cache="dual"), DPad())

ONE_BY_ONE = "confidence"
UNEVEN = "threshold:threshold=0.2"


def problem(family: Family = "llada", block_length: int = 4) -> Problem:
    """Three prompts of which two are padded, twelve positions to decode."""
    return Problem(
        shape=NetworkShape(family=family, layers=4),
        input_ids=torch.randint(0, 32, (3, 6), generator=torch.Generator().manual_seed(7)),
        is_valid=torch.arange(6) >= torch.tensor([[0], [2], [4]]),
        gen_length=12,
        block_length=block_length,
        seeds=(1, 2, 3),
    )


def positions(mask: Tensor) -> list[int]:
    """Where a mask, bool [seq], is True."""
    where: list[int] = mask.nonzero()[:, 0].tolist()
    return where


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


def recorded(policy: DPad, case: Problem, decoder: str = ONE_BY_ONE) -> list[tuple[StepView, Selection]]:
    """Every question that the core asked in a run, with the answer."""
    asked: list[tuple[StepView, Selection]] = []

    def recording(original: Callable[[StepView], Selection]) -> Callable[[StepView], Selection]:
        def select(view: StepView) -> Selection:
            selection = original(view)
            asked.append((view, selection))
            return selection

        return select

    case.run(wrapped(policy, select=recording), decoder)
    assert asked
    return asked


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_what_is_dropped_is_not_visible(cache: Cache) -> None:
    policy = DPad(window=6, k=4, cache=cache)
    alive = positions(survivors(6, 4.0, 2.0))
    assert 0 < len(alive) < 6
    for view, selection in recorded(policy, problem(), UNEVEN):
        assert selection.visible is not None
        for sequence in range(view.shape[0]):
            end = positions(view.in_block[sequence])[-1] + 1
            behind = [end + distance for distance in alive if end + distance < 18]
            assert positions(selection.visible[sequence]) == [*range(end), *behind]


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_dropped_is_not_computed(family: Family, cache: Cache) -> None:
    policy = DPad(window=6, k=4, cache=cache)
    alive = positions(survivors(6, 4.0, 2.0))
    trace = problem(family).alone(0).run(policy).trace
    assert bool(trace[0].refreshed.all())  # the core refreshes everything first
    for number, step in enumerate(trace[1:], start=1):
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
        assert positions(step.refreshed[0]) == sorted(expected)


def test_hidden_masks_change_the_run() -> None:
    near, whole = (problem().run(DPad(window=window, k=0, a=3)) for window in (1, 256))
    assert not torch.equal(near.trace[0].confidence, whole.trace[0].confidence)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_with_nothing_dropped_it_is_the_cache_below_it(cache: Cache) -> None:
    policy = DPad(k=0, a=3, cache=cache)
    run, plain = problem().run(policy, UNEVEN), problem().run(cache, UNEVEN)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in plain.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("decoder", [ONE_BY_ONE, UNEVEN])
def test_no_cache_with_nothing_dropped_is_exact(decoder: str, family: Family) -> None:
    run, truth = problem(family).run(DPad(k=0, a=2.51, cache="none"), decoder), problem(family).run("none", decoder)
    assert [step.tokens.tolist() for step in run.trace] == [step.tokens.tolist() for step in truth.trace]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.spec)
def test_a_sequence_does_not_depend_on_its_batch(policy: DPad, family: Family) -> None:
    together = problem(family)
    run = together.run(policy, UNEVEN)
    for sequence in range(together.batch):
        alone, start = together.alone(sequence).run(policy, UNEVEN), together.padding(sequence)
        own = [step for step in run.trace if step.active[sequence]]
        for here, there in zip(own, alone.trace, strict=True):
            assert torch.equal(here.tokens[sequence, start:], there.tokens[0])
            for layer in range(together.shape.layers):
                assert torch.equal(here.layer(layer)[sequence, start:], there.layer(layer)[0])


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = DPad
    exact = DPad(k=0, a=2.51, cache="none")
