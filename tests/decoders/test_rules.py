"""Each selection rule against its formula, written out in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freshkv.core.registry import resolve_decoder
from freshkv.core.view import StepView
from tests.decoders.build import MASK, PROMPT, logits_of, prediction, response, view

confidences = st.lists(st.floats(0.2, 0.999), min_size=1, max_size=8, unique=True)


def committed(spec: str, values: list[list[float]], **changes: object) -> list[list[bool]]:
    of = view([[1] * len(values[0])] * len(values), **changes)  # type: ignore[arg-type]
    return response(resolve_decoder(spec).decode(of, prediction(of, logits_of(values))).positions)


@given(confidences, st.floats(0.05, 3.0))
def test_factor_takes_the_largest_n_whose_bound_holds(values: list[float], factor: float) -> None:
    ordered = sorted((float(torch.tensor(value)) for value in values), reverse=True)
    slack = [(n + 1) * (1 - c) - factor for n, c in enumerate(ordered, start=1)]
    if any(abs(difference) < 1e-4 for difference in slack):
        return  # on the edge, rounding decides
    largest = max((n for n, difference in enumerate(slack, start=1) if difference < 0), default=0)
    expected = {values.index(c) for c in sorted(values, reverse=True)[: max(largest, 1)]}
    (row,) = committed(f"factor:factor={factor}", [values])
    assert {i for i, taken in enumerate(row) if taken} == expected


def test_factor_takes_all_when_all_pass() -> None:
    assert committed("factor:factor=1", [[0.99, 0.98, 0.97]]) == [[True, True, True]]


@given(confidences, st.floats(0.0, 2.0))
def test_entropy_bound_takes_the_longest_run_within_gamma(values: list[float], gamma: float) -> None:
    of = view([[1] * len(values)])
    predicted = prediction(of, logits_of([values]))
    entropy = predicted.distribution.entropy.tolist()
    order = sorted(range(len(values)), key=lambda i: -predicted.confidence[0, PROMPT + i].item())
    run = 0
    for length in range(1, len(values) + 1):
        chosen = [entropy[i] for i in order[:length]]
        excess = sum(chosen) - max(chosen)
        if abs(excess - gamma) < 1e-4:
            return  # on the edge, rounding decides
        if excess <= gamma:
            run = length
    (row,) = response(resolve_decoder(f"entropy-bound:gamma={gamma}").decode(of, predicted).positions)
    assert {i for i, taken in enumerate(row) if taken} == set(order[: max(run, 1)])


def test_entropy_bound_of_a_sequence_ignores_its_neighbours() -> None:
    certain, doubtful = [0.99, 0.98, 0.97, 0.96], [0.3, 0.25, 0.22, 0.21]
    together = committed("entropy-bound:gamma=0.5", [certain, doubtful])
    assert together == committed("entropy-bound:gamma=0.5", [certain]) + committed(
        "entropy-bound:gamma=0.5", [doubtful]
    )


def test_threshold_takes_every_certain_position_and_else_the_best() -> None:
    assert committed("threshold:threshold=0.9", [[0.95, 0.5, 0.91], [0.3, 0.4, 0.2]]) == [
        [True, False, True],
        [False, True, False],
    ]


def test_tokens_per_step_is_a_minimum_filled_with_the_best() -> None:
    row = committed("threshold:threshold=0.9,tokens_per_step=3", [[0.95, 0.5, 0.4, 0.6]])
    assert row == [[True, True, False, True]]


def test_autoregressive_stops_at_the_first_doubt() -> None:
    values = [[0.9, 0.8, 0.3, 0.95]]
    assert committed("autoregressive:threshold=0.5", values) == [[True, True, False, False]]
    assert committed("autoregressive:threshold=1", values) == [[True, False, False, False]]
    assert committed("autoregressive", values) == [[True, True, True, True]]


def test_equal_scores_go_to_the_lower_position() -> None:
    for spec in ("confidence", "confidence:score=margin", "confidence:score=entropy", "threshold", "klass"):
        assert committed(spec, [[0.5, 0.5, 0.5]]) == [[True, False, False]], spec


def test_the_certainty_prior_prefers_what_is_near_the_known() -> None:
    values = [[0.5] * 7 + [0.52]]
    assert committed("confidence", values)[0].index(True) == 7
    assert committed("confidence:prior_sigma=1", values)[0].index(True) == 0


@given(confidences, st.floats(0.0, 0.5))
def test_pc_sampler_weighs_by_position(values: list[float], decay: float) -> None:
    weighted = [min(float(torch.tensor(c)) * math.log(10), 10) * math.exp(-decay * i) for i, c in enumerate(values)]
    ranked = sorted(weighted, reverse=True)
    if len(ranked) > 1 and ranked[0] - ranked[1] < 1e-4:
        return  # a tie within rounding
    (row,) = committed(f"pc-sampler:decay={decay}", [values])
    assert row.index(True) == weighted.index(ranked[0])


def klass_view(quiet: list[int], step: int) -> StepView:
    memory = {"steps_below_kl_threshold": torch.tensor([[0] * PROMPT + quiet])}
    return view([[1] * len(quiet)], step=step, memory=memory)


def test_klass_commits_what_is_stable_and_certain() -> None:
    of = klass_view([1, 1, 0, 1], step=2)
    divergence = torch.tensor([[0.0, 0.0, 0.001, 0.001, 0.001, 0.5]])
    predicted = prediction(of, logits_of([[0.95, 0.5, 0.96, 0.97]]), divergence=divergence)
    commit = resolve_decoder("klass").decode(of, predicted)
    assert response(commit.positions) == [[True, False, False, False]]
    assert response(commit.remember["steps_below_kl_threshold"]) == [[2, 2, 1, 0]]


def test_wino_takes_back_the_least_certain_but_always_gains() -> None:
    of = view([[0, 0, 0, 1, 1, 1]])
    verified = torch.tensor([[torch.nan, torch.nan, 0.2, 0.95, 0.1, torch.nan, torch.nan, torch.nan]])
    decoder = resolve_decoder("wino:wide_in=0.6,narrow_out=0.9")
    bold = decoder.decode(of, prediction(of, logits_of([[0.5, 0.5, 0.5, 0.8, 0.7, 0.3]]), verified=verified))
    assert response(bold.positions) == [[False, False, False, True, True, False]]
    assert bold.remask is not None
    assert response(bold.remask) == [[False, False, True, False, False, False]]
    shy = decoder.decode(of, prediction(of, logits_of([[0.5, 0.5, 0.5, 0.5, 0.4, 0.3]]), verified=verified))
    assert shy.remask is not None
    assert not shy.remask.any()


@pytest.mark.parametrize(("steps", "expected"), [(4, [2, 2]), (3, [4, 4]), (6, [2, 1]), (8, [1, 1]), (100, [1, 1])])
def test_steps_spread_over_blocks_as_llada_does(steps: int, expected: list[int]) -> None:
    for step, count in enumerate(expected):
        of = view([[1] * 8], block_length=4, step=step)
        row = response(
            resolve_decoder(f"confidence:steps={steps}").decode(of, prediction(of, logits_of([[0.5] * 8]))).positions
        )
        assert sum(row[0]) == count


def test_dream_commits_what_its_schedule_says() -> None:
    steps, masks = 4, 12
    part = (1 - 0.001) / steps
    left = masks
    for step in range(steps):
        of = view([[1] * left + [0] * (masks - left)], step=step)
        taken = resolve_decoder("dream:steps=4").decode(of, prediction(of, logits_of([[0.5] * masks]))).positions
        share = 1.0 if step == steps - 1 else part / (1 - part * step)
        assert int(taken.sum()) == max(int(left * share), 1)
        left -= int(taken.sum())
    assert left == 0


def test_origin_commits_each_position_by_chance_and_at_least_one() -> None:
    of = view([[1] * 6])
    noise = torch.tensor([[0.0, 0.0, 0.5, 0.1, 0.3, 0.05, 0.9, 0.6]])
    predicted = prediction(of, logits_of([[0.5] * 6]), noise=noise)
    some = resolve_decoder("dream:algorithm=origin,steps=5").decode(of, predicted).positions  # 1 - s/t is 0.1998
    assert response(some) == [[False, True, False, True, False, False]]
    none = resolve_decoder("dream:algorithm=origin,steps=100").decode(of, predicted).positions
    assert response(none) == [[False, False, False, True, False, False]]


def test_no_decoder_proposes_the_mask_token() -> None:
    of = view([[1, 1, 1]])
    predicted = prediction(of, logits_of([[0.5, 0.6, 0.7]]))
    for name in ("confidence", "threshold", "factor", "entropy-bound", "klass", "wino", "dream", "pc-sampler"):
        commit = resolve_decoder(name).decode(of, predicted)
        assert not (commit.tokens[commit.positions] == MASK).any()
