"""``elastic``: rows by layer in runs."""

from __future__ import annotations

from itertools import pairwise

import torch

from freshkv.testing import PolicyContract, asked, columns, example_problem
from freshkv_elastic_cache import ElasticCache

UNEVEN = "threshold:threshold=0.2"


def test_without_drift_only_the_window_the_last_token_and_the_watched_are_recomputed() -> None:
    case = example_problem().alone(0)
    policy = ElasticCache(window=3, gamma=0.0)
    views, run = asked(policy, case), case.run(policy)
    tokens = run.trace[0].tokens
    for (before, step), (view, selection) in zip(pairwise(run.trace), views[1:], strict=True):
        window = columns(tokens[0] == case.shape.mask_token_id)[:3]
        just_decided, watched = columns(before.committed[0]), columns(selection.watch[0])
        received = view.signals["attention_received"][0]
        decided = (view.tokens[0] != case.shape.mask_token_id) & ~before.committed[0]
        assert watched == sorted({int(layer.masked_fill(~decided, -1).argmax()) for layer in received})
        for layer in range(4):
            assert columns(step.layer(layer)[0]) == sorted({*window, *just_decided, *watched})
        tokens = step.tokens


def test_dream_recomputes_the_rows_that_predict_the_window() -> None:
    case, policy = example_problem("dream").alone(0), ElasticCache(window=3, gamma=0.0)
    run, (_, selection) = case.run(policy), asked(policy, case)[1]
    just_decided = columns(run.trace[0].committed[0])
    window = [position for position in range(6, 18) if position not in just_decided][:3]
    expected = {position - 1 for position in window} | {*just_decided, *columns(selection.watch[0])}
    assert columns(run.trace[1].layer(0)[0]) == sorted(expected)


def test_only_the_window_is_decided() -> None:
    case = example_problem(block_length=12)
    run = case.run(ElasticCache(window=2), "threshold:threshold=0")
    tokens = run.trace[0].tokens
    for step in run.trace[1:]:
        for sequence in range(case.batch):
            masks = (tokens[sequence] == case.shape.mask_token_id) & (torch.arange(18) >= 6)
            assert columns(step.committed[sequence]) == columns(masks)[:2]
        tokens = step.tokens


def test_a_layer_recomputes_everything_if_the_one_below_drifted_or_did() -> None:
    grown = kept = 0
    for view, layer, rows in asked(ElasticCache(window=3), example_problem(), method="select_layer"):
        for sequence in range(rows.shape[0]):
            full = bool(rows[sequence].all())
            below = bool((layer.below | ~view.is_valid)[sequence].all())
            drifted = bool(layer.attention_drift[sequence] > 0.1)
            assert full == (layer.layer > 0 and (below or drifted))
            grown, kept = grown + full, kept + (not full)
    assert grown > 0
    assert kept > 0


def test_rows_never_shrink_with_depth() -> None:
    for step in example_problem().run(ElasticCache(window=3), UNEVEN).trace:
        for layer in range(1, 4):
            assert bool((step.layer(layer) | ~step.layer(layer - 1)).all())


def test_a_stricter_threshold_recomputes_at_least_as_much_in_the_first_reusing_step() -> None:
    runs = [example_problem().run(ElasticCache(window=3, gamma=gamma)) for gamma in (0.0, 0.9, 0.99)]
    rows = [run.trace[1].rows_computed for run in runs]
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]


class TestContract(PolicyContract):
    """What every policy owes."""

    policy = ElasticCache
    exact = ElasticCache(gamma=1)
