"""Property 9: what the trace says was computed is what went through the network, and no more."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from torch import Tensor

import freshkv
from freshkv import CachePolicy, Decoder, LayerwisePolicy, StepView
from freshkv.core.layerwise import probes_apart
from freshkv.testing import Problem, WatchedNetwork, wrapped
from freshkv.testing.strategies import problems
from tests.core.support import POLICIES, any_decoder, examples, policies_of


class Meter:
    """Checks every step of a run against the rows that passed through its network."""

    def __init__(self, problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        self.network = WatchedNetwork(problem.network)
        self.problem, self.policy, self.decoder = problem, policy, decoder
        self.open = self.masked = self.verified = 0
        self.probed: Counter[int] = Counter()  # by layer
        self.rows: list[tuple[int, ...]] = []

    def select(self, original):
        def select(view: StepView):
            # several groups of sequences are asked in one step
            self.masked += int(view.is_masked.sum())
            self.open += int((view.is_open & view.in_block).sum())
            return original(view)

        return select

    def verify(self, original):
        def verify(view: StepView) -> Tensor | None:
            positions = original(view)
            self.verified += 0 if positions is None else int(positions.sum())
            return positions

        return verify

    def probe(self, original):
        def probe(view: StepView) -> Tensor | None:
            rows = original(view)
            for layer in range(self.problem.shape.layers):
                self.probed[layer] += 0 if rows is None else int(rows.sum())
            return rows

        return probe

    def probe_layer(self, original):
        def probe_layer(view: StepView, layer: int, layers: int, below: Tensor) -> Tensor | None:
            rows = original(view, layer, layers, below)
            # hidden states are there already
            self.probed[layer] += 0 if rows is None or self.policy.probes == "hidden_states" else int(rows.sum())
            return rows

        return probe_layer

    def leave_out_truth(self, step: freshkv.StepRecord) -> None:
        """The uncached forward beside an oracle is no work of the policy's; it runs from the second step on."""
        if self.policy.uses_truth and self.rows:
            rows = int(step.active.sum()) * step.tokens.shape[1]
            self.network.rows["embed_rows", -1] -= rows
            for layer in range(self.problem.shape.layers):
                for method in ("project", "attention_output", "feed_forward"):
                    self.network.rows[method, layer] -= rows

    def check(self, step: freshkv.StepRecord) -> None:
        network = self.network
        self.leave_out_truth(step)
        assert network.by_layer("project") == step.rows_by_layer
        assert network.by_layer("attention_output") == step.rows_by_layer
        assert network.by_layer("feed_forward") == step.rows_by_layer
        probed = tuple(self.probed[layer] for layer in range(self.problem.shape.layers))
        assert network.by_layer("project_values") == probed
        assert step.probed_by_layer == (probed if any(probed) else ())
        refreshed = tuple(int(step.layer(layer).sum()) for layer in range(self.problem.shape.layers))
        assert tuple(count + self.verified for count in refreshed) == step.rows_by_layer
        assert step.rows_computed == sum(step.rows_by_layer) // self.problem.shape.layers
        everywhere = "confidence" in self.policy.needs or "divergence" in self.decoder.needs
        allowed = (self.masked if everywhere else self.open) + self.verified
        assert network.rows["logits", -1] <= allowed, "logits that nobody uses"
        if not isinstance(self.policy, LayerwisePolicy):
            assert network.rows["embed_rows", -1] == step.rows_by_layer[0], "rows that carry nothing"
        self.rows.append(step.rows_by_layer)
        network.rows.clear()
        self.open = self.masked = self.verified = 0
        self.probed.clear()


@pytest.mark.parametrize("name", POLICIES)
def test_the_counters_are_the_rows_that_went_through_the_network(name: str) -> None:
    @examples(25)
    @given(problems(), policies_of(name), any_decoder())
    def check(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
        meter = Meter(problem, policy, decoder)
        changes = {"select": meter.select}
        if isinstance(policy, LayerwisePolicy):
            name_of_probe = "probe_layer" if probes_apart(policy) else "probe"
            changes[name_of_probe] = getattr(meter, name_of_probe)
        run = problem.run(
            wrapped(policy, **changes),
            wrapped(decoder, verify=meter.verify),
            network=meter.network,
            on_step=meter.check,
        )
        assert run.stats.forwards == len(run.trace) == len(meter.rows)
        assert run.stats.rows_computed == sum(step.rows_computed for step in run.trace)
        assert [step.rows_by_layer for step in run.trace] == meter.rows

    check()


@examples(20)
@given(problem=problems(), decoder=any_decoder())
def test_the_uncached_run_computes_every_row_of_every_unfinished_sequence(problem: Problem, decoder: Decoder) -> None:
    seq = problem.prompt_length + problem.gen_length
    for step in problem.run("none", wrapped(decoder, verify=lambda _: lambda view: None)).trace:
        assert step.rows_computed == int(step.active.sum()) * seq
        assert torch.equal(step.refreshed, step.active[:, None].expand(-1, seq))
