"""Random schedules of rows for the engine and the naive executor: what is refreshed in every step and layer."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from hypothesis import strategies as st
from torch import Tensor

from freshkv.core.engine import Engine
from freshkv.core.forward_result import ForwardResult
from freshkv.core.naive import NaiveExecutor
from freshkv.core.network import Network
from freshkv.core.policy import Probes
from freshkv.core.probing import Probing
from freshkv.core.rows import RowSet
from freshkv.core.visible import Visible
from freshkv.testing import NetworkShape, tiny_network
from freshkv.testing.strategies import left_padded, network_shapes, row_masks, visible_masks


@frozen(eq=False)
class Step:
    """One forward pass over given tokens."""

    tokens: Tensor  #: long [batch, seq]
    rows: Tensor  #: bool [layers, batch, seq]
    probe: Tensor | None = None  #: bool [layers, batch, seq]
    visible: Tensor | None = None  #: bool [batch, seq] or [batch, layers, seq]
    watch: Tensor | None = None  #: bool [batch, seq]

    def take(self, places: list[int]) -> Step:
        """The same for some sequences."""
        probe = None if self.probe is None else self.probe[:, places]
        visible = None if self.visible is None else self.visible[places]
        return Step(self.tokens[places], self.rows[:, places], probe, visible)


@frozen(eq=False)
class Schedule:
    """Steps over one canvas; the first refreshes everything."""

    shape: NetworkShape
    is_valid: Tensor  #: bool [batch, seq]
    steps: list[Step]
    probes: Probes = "values"
    probe_stores: bool = True

    @property
    def network(self) -> Network:
        return tiny_network(self.shape)

    def engine(self, *, carried: bool, **options: Any) -> Engine:
        return self.engine_of(self.is_valid, carried=carried, **options)

    def engine_of(self, is_valid: Tensor, *, carried: bool, **options: Any) -> Engine:
        """For some of the sequences."""
        inputs = carried and self.probes == "hidden_states"
        return Engine(
            self.network,
            is_valid,
            carried=carried,
            keep_inputs=inputs,
            watch_attention=carried,
            poison=True,
            **options,
        )

    def naive(self) -> NaiveExecutor:
        return NaiveExecutor(self.network, self.is_valid)

    def assert_same(self, first: Tensor, second: Tensor) -> None:
        """Equal but for the order of additions."""
        tolerance = 1e-11 if self.shape.double else 2e-5
        torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)

    def assert_naive(self, found: Tensor, expected: Tensor) -> None:
        """What the naive executor computes, whose softmax is in float32 even for a float64 network."""
        tolerance = 1e-5 if self.shape.double else 1e-4
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@st.composite
def schedules(draw: st.DrawFn, *, same_in_all_layers: bool, probes: bool = False, count: int = 2) -> Schedule:
    """``count`` steps after the first; about a third of the tokens change before each.

    Any step may hide keys, the first too, whichever rows it refreshes. Hidden keys often stay the same from step to
    step; others come to be seen and are not refreshed.
    """
    shape = draw(network_shapes(double=None))
    batch, seq = draw(st.integers(1, 3)), draw(st.integers(2, 7))
    is_valid = left_padded(draw(st.tuples(*[st.integers(0, seq - 2)] * batch)), seq)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    tokens = torch.randint(0, shape.vocabulary, (batch, seq), generator=generator)
    everything = torch.ones(shape.layers, batch, seq, dtype=torch.bool)
    visible = draw(visible_masks(is_valid, shape.layers))
    steps = [Step(tokens, everything, visible=visible)]
    for _ in range(count):
        fresh = torch.randint(0, shape.vocabulary, (batch, seq), generator=generator)
        tokens = torch.where(torch.rand(batch, seq, generator=generator) < 0.3, fresh, tokens)
        layers = 1 if same_in_all_layers else shape.layers
        rows = torch.stack([draw(row_masks(batch, seq)) for _ in range(layers)]).expand(shape.layers, -1, -1)
        probe = draw(st.none() | row_masks(shape.layers, batch, seq)) if probes else None
        visible = visible if draw(st.booleans()) else draw(visible_masks(is_valid, shape.layers))
        steps.append(Step(tokens, rows, probe, visible, draw(st.none() | row_masks(batch, seq))))
    measured: Probes = draw(st.sampled_from(("values", "hidden_states")))
    return Schedule(shape, is_valid, steps, measured, draw(st.booleans()))


def changed_rows(engine: Engine, step: Step) -> RowSet | None:
    """What the engine makes of the tokens that stay, as a run tells it."""
    changed = engine.changed(step.tokens)
    return None if changed is None else RowSet.of(changed)


def sees(visible: Tensor | None) -> Visible | None:
    """The mask as the engine takes it."""
    return None if visible is None else Visible.of(visible)


def run_narrow(engine: Engine, step: Step) -> tuple[ForwardResult, Tensor]:
    """The result, and its hidden states spread over the canvas, NaN at rows that did not flow."""
    result = engine.narrow(step.tokens, RowSet.of(step.rows[0]), sees(step.visible), changed=changed_rows(engine, step))
    hidden = result.hidden.new_full((*step.tokens.shape, result.hidden.shape[1]), float("nan"))
    hidden[step.rows[0]] = result.hidden
    return result, hidden


@frozen(eq=False)
class Seen:
    """What a run on the carried path shows while it goes on."""

    movements: list[Tensor] = field(factory=list)  #: [batch, seq] for each layer
    drifts: list[Tensor] = field(factory=list)  #: [batch]; of each layer


def run_carried(schedule: Schedule, engine: Engine, step: Step) -> tuple[Tensor, Seen]:
    """Hidden states [batch, seq, width] of all rows, and what was shown."""
    seen = Seen()

    def choose(layer: int, movement: Tensor) -> Tensor:
        seen.movements.append(movement)
        seen.drifts.append(engine.attention_drift)
        return step.rows[layer]

    def probe(layer: int) -> RowSet | None:
        return None if step.probe is None else RowSet.of(step.probe[layer])

    probing = Probing(probe, schedule.probes, schedule.probe_stores)
    changed = changed_rows(engine, step)
    result = engine.carried(step.tokens, choose, probing, sees(step.visible), watch=step.watch, changed=changed)
    seen.drifts.append(engine.attention_drift)
    return result.hidden.unflatten(0, step.tokens.shape), Seen(seen.movements, seen.drifts[1:])


def run_naive(schedule: Schedule, executor: NaiveExecutor, step: Step) -> tuple[Tensor, list[Tensor]]:
    """The same from the oracle."""
    movements: list[Tensor] = []

    def choose(layer: int, movement: Tensor) -> Tensor:
        movements.append(movement)
        return step.rows[layer]

    hidden = executor.step(
        step.tokens,
        choose,
        visible=step.visible,
        probe=None if step.probe is None else list(step.probe),
        probes=schedule.probes,
        probe_stores=schedule.probe_stores,
    )
    return hidden, movements


def stored(executor: NaiveExecutor, what: dict[tuple[int, int, int], Tensor], layer: int) -> Tensor:
    """A dictionary of the naive executor as a tensor [batch, seq, ...]."""
    batch, seq = executor.is_valid.shape
    return torch.stack([torch.stack([what[layer, b, i] for i in range(seq)]) for b in range(batch)])
