"""Rows that take turns: every row once, and nobody's memory is written to but one's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freshkv.core import turns
from freshkv.core.engine import Engine
from freshkv.core.network import Network
from freshkv.core.rows import RowSet
from freshkv.testing import NetworkShape, tiny_network
from freshkv.testing.watched import WatchedNetwork


@given(count=st.integers(0, 200), most=st.integers(1, 40))
def test_turns_hold_every_row_once_and_are_of_one_size(count: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "most_rows", lambda element_size: most)
        parts = turns.turns_of(count, 4)
    rows = [list(range(count)[part]) for part in parts]
    assert [row for part in rows for row in part] == list(range(count))
    sizes = {len(part) for part in rows}
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("most", [3, 100])
@pytest.mark.parametrize("own", [False, True])
def test_a_sum_takes_the_place_of_what_is_its_own(monkeypatch, most: int, own: bool) -> None:
    monkeypatch.setattr(turns, "most_rows", lambda element_size: most)
    hidden, heads = torch.randn(10, 4), torch.randn(10, 2, 3)
    before = hidden.clone()

    def project(rows: torch.Tensor) -> torch.Tensor:
        return rows.flatten(1) @ torch.ones(6, 4)

    total = turns.added(hidden, project, heads, own=own)
    torch.testing.assert_close(total, before + project(heads))
    torch.testing.assert_close(turns.computed(project, heads), project(heads))
    assert (total is hidden) == own
    assert own or torch.equal(hidden, before)


class HandsOutItsTable(WatchedNetwork):
    """What it embeds is the memory of its own table, not a copy."""

    def __init__(self, network: Network, rows: torch.Tensor) -> None:
        super().__init__(network)
        self.table = network.embed_rows(rows)

    def embed_rows(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.table


def test_what_a_network_hands_out_is_not_written_to(monkeypatch) -> None:
    monkeypatch.setattr(turns, "most_rows", lambda element_size: 3)
    tokens = torch.randint(14, (1, 10), generator=torch.Generator().manual_seed(1))
    network = HandsOutItsTable(tiny_network(NetworkShape()), tokens.flatten())
    table = network.table.clone()
    Engine(network, torch.ones_like(tokens, dtype=torch.bool)).narrow(tokens, RowSet.everything(tokens))
    assert torch.equal(network.table, table)


def test_rows_of_half_the_size_are_twice_as_many() -> None:
    assert [turns.most_rows(size) for size in (2, 4, 8)] == [1280, 640, 320]
    assert len(turns.turns_of(1280, 2)) == 1
    assert len(turns.turns_of(1281, 2)) == 2
