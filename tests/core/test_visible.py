"""Hidden keys cost nothing where gathering pays, and gathered copies follow what is written."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from hypothesis import given

from freshkv import CachePolicy, Selection, StepView
from freshkv.core import kept_attention
from freshkv.core.visible import Gathering, Visible, VisibleKeys, gathered
from freshkv.testing import example_problem
from tests.core.schedule import Schedule, run_carried, run_narrow, schedules
from tests.core.support import examples


@frozen
class Keeps(CachePolicy):
    """Sees a share of the columns from the second step on; another share in every step, if it is restless."""

    name = "test-keeps"
    share: float = 0.5
    restless: bool = False

    def select(self, view: StepView) -> Selection:
        if view.step == 0:
            return Selection(view.everything)
        column = torch.arange(view.shape[1])
        seen = ((column + (view.step if self.restless else 0)) % 10 < 10 * self.share) | view.in_block
        return Selection(view.in_block, visible=seen.expand(view.shape))


def keys_attended(policy: CachePolicy, gathering: Gathering, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys attention is handed in the first layer of each step."""
    original, counts = kept_attention.attend, []

    def attend(queries, keys, values, rows, visible):
        counts.append(keys.shape[2])
        return original(queries, keys, values, rows, visible)

    monkeypatch.setattr(kept_attention, "attend", attend)
    problem = example_problem(block_length=12).alone(0)
    problem.run(policy, gathering=gathering)
    return counts[:: problem.shape.layers]


@pytest.mark.parametrize(
    ("policy", "gathering", "expected"),
    [
        # 18 columns: the block's twelve are always seen, and of the prompt's six none, one or all
        (Keeps(share=0.0), "never", [18, 18, 18, 18]),
        (Keeps(share=0.0), "always", [18, 12, 12, 12]),
        (Keeps(share=0.0), "auto", [18, 18, 12, 12]),
        (Keeps(share=0.1), "auto", [18, 18, 13, 13]),
        (Keeps(share=1.0), "auto", [18, 18, 18, 18]),
        (Keeps(share=0.3, restless=True), "auto", [18, 18, 18, 18]),
    ],
)
def test_keys_are_gathered_where_that_pays(
    policy: Keeps, gathering: Gathering, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys_attended(policy, gathering, monkeypatch)[:4] == expected


@frozen
class Nearsighted(CachePolicy):
    """Sees four columns."""

    name = "test-nearsighted"

    def select(self, view: StepView) -> Selection:
        column = torch.arange(view.shape[1])
        return Selection(view.everything, visible=((column >= 4) & (column < 8)).expand(view.shape))


def test_few_keys_are_gathered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(keys_attended(Nearsighted(), "auto", monkeypatch)) == {4}


@examples(30)
@given(schedule=schedules(same_in_all_layers=False, probes=True, count=3))
def test_gathered_copies_hold_what_is_cached(schedule: Schedule) -> None:
    for carried in (False, True):
        engine = schedule.engine(carried=carried, gathering="always")
        for step in schedule.steps:
            if carried:
                run_carried(schedule, engine, step)
            else:
                run_narrow(engine, step)
            for layer, seen in enumerate(engine._seen):
                keys, values = engine.store.attended(layer, seen)
                if seen.columns is None:
                    continue
                real = torch.ones_like(seen.columns, dtype=torch.bool) if seen.mask is None else seen.mask
                keys, values = keys.permute(1, 2, 0, 3), values.permute(1, 2, 0, 3)
                place = torch.arange(keys.shape[0])[:, None].expand_as(seen.columns)[real], seen.columns[real]
                assert torch.equal(keys[real], engine.store.keys(layer)[place])
                assert torch.equal(values[real], engine.store.values(layer)[place])
                assert int(real.sum()) == int(engine._mask(layer).sum())


def test_what_gathered_keys_receive_goes_back_to_their_columns() -> None:
    visible = torch.tensor([[True, False, True, True], [False, True, False, False]])
    seen = gathered(Visible.of(visible), layers=2)[1]
    assert seen.mask is not None
    assert seen.mask.tolist() == [[True, True, True], [True, False, False]]
    received = torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]])
    assert seen.spread(received, 4).tolist() == [[1, 0, 2, 3], [0, 4, 0, 0]]
    assert VisibleKeys(None).spread(received, 3) is received
