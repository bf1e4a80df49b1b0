"""Keys and values head by head: sequences come and go, rows are written, and each is where it belongs."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from freshkv.core.head_memory import HeadMemory
from freshkv.core.rows import RowSet

LAYERS, WIDTH = 2, 3


class SequencesComeAndGo(RuleBasedStateMachine):
    """Beside a plain tensor [layers, batch, seq, kv_heads, width]."""

    @initialize(kv_heads=st.integers(1, 3), batch=st.integers(1, 4), seq=st.integers(1, 5), seed=st.integers(0, 2**16))
    def begin(self, kv_heads: int, batch: int, seq: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.most, self.kv_heads, self.seq = batch, kv_heads, seq
        cpu = torch.device("cpu")
        self.memory = HeadMemory(LAYERS, kv_heads, batch, seq, WIDTH, device=cpu, dtype=torch.float32)
        self.memory.fill(0.0)
        self.plain = torch.zeros(LAYERS, batch, seq, kv_heads, WIDTH)

    @rule(layer=st.integers(0, LAYERS - 1), share=st.sampled_from((0.3, 0.7, 1.0)), from_left=st.booleans())
    def write(self, layer: int, share: float, from_left: bool) -> None:
        mask = torch.rand(self.plain.shape[1:3], generator=self.generator) < share
        if from_left and mask.shape[0] == 1:  # one piece
            mask = mask.sort(dim=1, descending=True).values
        rows = RowSet.of(mask)
        fresh = torch.rand(rows.count, self.kv_heads, WIDTH, generator=self.generator)
        self.memory.write(layer, rows, fresh)
        self.plain[layer][mask] = fresh
        assert torch.equal(self.memory.take(layer, rows), fresh)

    @precondition(lambda self: self.plain.shape[1] > 1)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        places = st.integers(0, self.plain.shape[1] - 1)
        sequences = sorted(data.draw(st.sets(places, min_size=1)))
        self.memory.keep(sequences)
        self.plain = self.plain[:, sequences]

    @precondition(lambda self: self.plain.shape[1] < self.most)
    @rule(data=st.data(), value=st.floats(-9, 9, width=32))
    def admit(self, data: st.DataObject, value: float) -> None:
        newcomers = data.draw(st.integers(1, self.most - self.plain.shape[1]))
        first = self.plain.shape[1]
        self.memory.admit(newcomers)
        everything = torch.ones(newcomers, self.seq, dtype=torch.bool)
        self.memory.fill_columns(first, everything, value)
        fresh = torch.full((LAYERS, newcomers, *self.plain.shape[2:]), value)
        self.plain = torch.cat((self.plain, fresh), dim=1)

    @invariant()
    def holds_the_same(self) -> None:
        for layer in range(LAYERS):
            assert torch.equal(self.memory.by_row(layer), self.plain[layer])
            by_head = self.memory.by_head(layer)
            assert by_head.is_contiguous()
            assert torch.equal(by_head, self.plain[layer].permute(2, 0, 1, 3))


TestSequencesComeAndGo = SequencesComeAndGo.TestCase


@given(widths=st.lists(st.integers(0, 4), min_size=1, max_size=3), kv_heads=st.integers(1, 2))
def test_only_padding_is_filled(widths: list[int], kv_heads: int) -> None:
    memory = HeadMemory(1, kv_heads, len(widths), 4, WIDTH, device=torch.device("cpu"), dtype=torch.float32)
    memory.fill(1.0)
    padding = torch.arange(4) < torch.tensor(widths)[:, None]
    memory.fill_columns(0, padding, 0.0)
    assert torch.equal(memory.by_row(0)[..., 0, 0] == 0, padding)
