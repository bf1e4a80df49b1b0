"""Requests for tiny networks, served with poisoned caches, beside each of them decoded alone."""

from __future__ import annotations

from typing import Any

import torch
from attrs import evolve, field, frozen
from hypothesis import strategies as st

from freshkv import Request, RequestResult, Trace
from freshkv.core.decoder import Decoder
from freshkv.core.generate import run_canvas
from freshkv.core.loop import RunOptions
from freshkv.core.network import Network
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.run import Run
from freshkv.core.sampling import Sampling
from freshkv.core.serving import Serving
from freshkv.testing import NetworkShape, tiny_network
from freshkv.testing.strategies import network_shapes, samplings
from tests.core.support import assert_same_confidence


@frozen(kw_only=True, eq=False)
class Service:
    """Requests for one network."""

    shape: NetworkShape
    requests: tuple[Request, ...]
    slots: int
    sampling: Sampling = field(factory=Sampling)
    eos_token_id: int | None = None
    gathering: Any = "auto"
    plan_ahead: bool | None = None  #: of those that are served together

    @property
    def network(self) -> Network:
        return tiny_network(self.shape)

    def options(self, policy: str | CachePolicy, decoder: str | Decoder, *seeds: int) -> RunOptions:
        return RunOptions(
            policy=resolve_policy(policy),
            decoder=resolve_decoder(decoder),
            sampling=self.sampling,
            seeds=seeds,
            poison=True,
            gathering=self.gathering,
            plan_ahead=self.plan_ahead,
        )

    def serving(
        self, policy: str | CachePolicy, decoder: str | Decoder, *, network: Network | None = None, **options: Any
    ) -> Serving:
        return Serving(
            model=self.network if network is None else network,
            options=self.options(policy, decoder),
            eos_token_id=self.eos_token_id,
            **{"keep_traces": True, **options},
        )

    def serve(self, policy: str | CachePolicy, decoder: str | Decoder, **options: Any) -> list[RequestResult]:
        """In the order in which they are finished."""
        return list(self.serving(policy, decoder, **options).serve(self.requests, self.slots))

    def alone(
        self, request: Request, policy: str | CachePolicy, decoder: str | Decoder, network: Network | None = None
    ) -> Run:
        """The request by itself, as ``generate`` decodes it."""
        network = self.network if network is None else network
        canvas = request.canvas(network.network_spec, network.device, self.eos_token_id)
        return run_canvas(network, canvas, evolve(self.options(policy, decoder, request.seed), plan_ahead=False))

    def assert_independent(self, policy: str | CachePolicy, decoder: str | Decoder) -> list[RequestResult]:
        """Every request is decoded once, as it is alone: tokens, order, rows, counters."""
        results = self.serve(policy, decoder)
        assert sorted(result.index for result in results) == list(range(len(self.requests)))
        for result in results:
            assert result.request is self.requests[result.index]
            assert_as_alone(result, self.alone(result.request, policy, decoder))
        return results


def assert_as_alone(result: RequestResult, alone: Run) -> None:
    assert torch.equal(result.sequence, alone.sequences[0])
    assert torch.equal(result.response, alone.responses[0])
    stats = result.stats
    assert stats.forwards == len(alone.trace)
    assert stats.rows_computed * len(alone.trace[0].rows_by_layer) == sum(
        sum(step.rows_by_layer) for step in alone.trace
    )
    assert stats.tokens_committed == alone.stats.tokens_committed
    assert stats.tokens_produced == alone.stats.tokens_produced
    if result.trace is not None:
        assert_same_trace(result.trace, alone.trace)


def assert_same_trace(mine: Trace, alone: Trace) -> None:
    assert (mine.prompt_length, mine.mask_token_id, mine.facts) == (
        alone.prompt_length, alone.mask_token_id, alone.facts,
    )  # fmt: skip
    assert len(mine) == len(alone)
    for number, (here, there) in enumerate(zip(mine, alone, strict=True)):
        for name in ("tokens", "committed", "remasked", "refreshed", "added", "predicted", "active"):
            assert torch.equal(getattr(here, name), getattr(there, name)), f"{name}, step {number}"
        for name in ("rows_by_layer", "shadow_rows", "probed_by_layer", "watched_by_layer"):
            assert getattr(here, name) == getattr(there, name), f"{name}, step {number}"
        layers = len(there.rows_by_layer)
        for layer in range(layers):
            assert torch.equal(here.layer(layer), there.layer(layer)), f"rows of layer {layer}, step {number}"
        assert torch.equal(here.keys.expand(-1, layers), there.keys.expand(-1, layers)), f"keys, step {number}"
        assert_same_confidence(here.confidence, there.confidence)


@st.composite
def services(
    draw: st.DrawFn, shapes: st.SearchStrategy[NetworkShape] | None = None, *, most: int = 6, greedy: bool = False
) -> Service:
    """Requests of any length and blocks, more or fewer than slots, sampling, EOS or not."""
    shape = draw(network_shapes() if shapes is None else shapes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    prompts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=most))
    requests = []
    for length in prompts:
        block = draw(st.integers(1, 4)) if shape.block_causal is None else draw(st.sampled_from((None, 1)))
        gen_length = draw(st.integers(1, 3)) * (block or 1)
        tokens = torch.randint(0, shape.vocabulary, (length,), generator=generator)
        requests.append(Request(tokens, gen_length=gen_length, block_length=block, seed=draw(st.integers(0, 2**16))))
    ends = [token for token in range(0, shape.vocabulary, 3) if token != shape.mask_token_id]
    return Service(
        shape=shape,
        requests=tuple(requests),
        slots=draw(st.integers(1, 4)),
        sampling=Sampling() if greedy else draw(samplings()),
        eos_token_id=draw(st.sampled_from((None, shape.eos_token_id, *ends))),
        gathering=draw(st.sampled_from(("auto", "always"))),
        plan_ahead=draw(st.booleans()),
    )
