"""A request is decoded as it is alone, whatever it shares its batch with, whoever had its slot before."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from freshkv import CachePolicy, Commit, Decoder, Prediction, Request, Selection, StepView, best
from freshkv.testing import NetworkShape
from freshkv.testing.networks import MORE_FAMILIES, Family
from tests.core.requests import Service, services
from tests.core.support import (
    DECODERS,
    POLICIES,
    any_decoder,
    any_policy,
    decoders_of,
    examples,
    policies_of,
)
from tests.core.test_properties_batch import WIDE, Notes, NotingDecoder, Uneven


@pytest.mark.parametrize("name", POLICIES)
def test_with_any_policy_a_request_does_not_depend_on_its_packing(name: str) -> None:
    @examples(8)
    @given(services(), policies_of(name), any_decoder())
    def check(service: Service, policy: CachePolicy, decoder: Decoder) -> None:
        service.assert_independent(policy, decoder)

    check()


@pytest.mark.parametrize("name", DECODERS)
def test_with_any_decoder_a_request_does_not_depend_on_its_packing(name: str) -> None:
    @examples(6)
    @given(services(), any_policy(), decoders_of(name))
    def check(service: Service, policy: CachePolicy, decoder: Decoder) -> None:
        service.assert_independent(policy, decoder)

    check()


#: options that show more than the defaults: rows up to a distance from each other, few rows and late refreshes
NARROW = ("d2cache:current_k=2,inflate_w=16", "dllm:kp=100,kr=3,rou=0.5", "frontier:surest=1,stalest=1")


def uneven_service(slots: int, shape: NetworkShape | None = None) -> Service:
    """Nine requests that take one, two or three tokens a step: some slot is free after almost every pass."""
    lengths = ((12, 6), (4, 4), (8, 4), (12, 4), (2, 1), (6, 6), (12, 12), (3, 3), (8, 2))
    generator = torch.Generator().manual_seed(3)
    return Service(
        shape=NetworkShape(family="dream", heads=4, kv_heads=2) if shape is None else shape,
        requests=tuple(
            Request(
                torch.randint(0, 30, (2 + number % 4,), generator=generator),
                gen_length=gen_length,
                block_length=block_length,
                seed=number,
            )
            for number, (gen_length, block_length) in enumerate(lengths)
        ),
        slots=slots,
    )


@pytest.mark.parametrize("policy", [*(WIDE.get(name, name) for name in POLICIES), *NARROW])
def test_slots_that_are_filled_anew_all_the_time_hold_nothing_of_before(policy: str) -> None:
    service = uneven_service(slots=3)
    results = service.assert_independent(policy, Uneven())
    assert [result.index for result in results] != sorted(result.index for result in results)


@pytest.mark.parametrize("family", MORE_FAMILIES)
@pytest.mark.parametrize("policy", ["dual", "block", "dllm:kp=3,kr=2", "d2cache:current_k=2"])
def test_attention_patterns_and_experts_do_not_mix_requests(family: Family, policy: str) -> None:
    block = 4 if family in ("qwen3", "llada2") else None
    service = uneven_service(3, NetworkShape(family=family, layers=3, block_causal=block))
    if block is not None:
        requests = tuple(
            Request(request.input_ids, gen_length=request.gen_length, seed=request.seed) for request in service.requests
        )
        service = Service(shape=service.shape, requests=requests, slots=3)
    service.assert_independent(policy, Uneven())


@examples(12)
@given(service=services(greedy=True), policy=any_policy(), data=st.data())
def test_neither_order_nor_slots_change_what_a_request_gives(
    service: Service, policy: CachePolicy, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(service.requests))))
    other = Service(
        shape=service.shape,
        requests=tuple(service.requests[place] for place in order),
        slots=data.draw(st.integers(1, 6)),
        eos_token_id=service.eos_token_id,
    )
    first = {result.index: result for result in service.serve(policy, "threshold:threshold=0.3")}
    for result in other.serve(policy, "threshold:threshold=0.3"):
        same = first[order[result.index]]
        assert torch.equal(result.sequence, same.sequence)
        assert (result.stats.forwards, result.stats.rows_computed) == (same.stats.forwards, same.stats.rows_computed)


@pytest.mark.parametrize("policy", [Notes(), "none"])
@pytest.mark.parametrize("decoder", [Uneven(), NotingDecoder()])
def test_nobody_finds_what_a_predecessor_or_neighbour_remembered(policy: str | CachePolicy, decoder: Decoder) -> None:
    for slots in (1, 2, 4):
        uneven_service(slots).assert_independent(policy, decoder)


@frozen
class Remembering(CachePolicy):
    """Looks for a note in its first step, where there is none, and leaves one."""

    name = "test-remembering"

    def select(self, view: StepView) -> Selection:
        assert ("noted" in view.memory) == (view.step > 0)
        return Selection(predict=view.in_block, remember={"noted": view.tokens})


def test_a_request_begins_with_an_empty_memory() -> None:
    uneven_service(2).assert_independent(Remembering(), Uneven())


@frozen
class Listening(CachePolicy):
    """Looks for what a signal says before there was a pass, and refreshes where one said most in the pass before."""

    name = "test-listening"
    needs = frozenset({"attention_rollout", "attention_received", "attention_scores", "drift"})

    def select(self, view: StepView) -> Selection:
        assert set(view.signals) == self.needs
        if view.step == 0:
            assert all(bool((signal == 0).all()) for signal in view.signals.values())
        said = view.signals["attention_received"].sum(dim=1) + view.signals["drift"].sum(dim=1)
        return Selection(predict=view.in_block, refresh=best(said, view.is_valid, 2))


def test_a_request_begins_without_signals() -> None:
    for slots in (2, 4):
        uneven_service(slots).assert_independent(Listening(), Uneven())


@frozen
class Lengths(CachePolicy):
    """Looks whether the views of requests of different shapes are kept apart."""

    name = "test-lengths"

    def select(self, view: StepView) -> Selection:
        assert len(set(view.is_response.sum(dim=1).tolist())) == 1
        blocks = view.block_index.amax(dim=1) + 1
        assert (blocks * view.block_length).tolist() == view.is_response.sum(dim=1).tolist()
        return Selection(predict=view.in_block)


def test_a_view_holds_requests_of_equal_response_and_blocks() -> None:
    uneven_service(9).assert_independent(Lengths(), Uneven())


@frozen
class LeastMoved(Decoder):
    """Commits where distributions have moved least since the step before, one or two positions as they moved."""

    name = "test-least-moved"
    needs = frozenset({"divergence"})

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        moved = prediction.divergence
        known = prediction.positions & moved.isfinite()
        count = 1 + (known.sum(dim=1, keepdim=True) % 2)
        return Commit(best(-moved.clamp(max=1e9), prediction.positions, count), prediction.tokens)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_distributions_are_compared_with_those_of_the_same_request(slots: int) -> None:
    uneven_service(slots).assert_independent("none", LeastMoved())


@examples(12)
@given(service=services(), policy=any_policy(), decoder=any_decoder())
def test_no_slot_is_free_while_somebody_waits(service: Service, policy: CachePolicy, decoder: Decoder) -> None:
    results = service.serve(policy, decoder, keep_traces=False)
    forwards = [result.stats.forwards for result in results]
    slots = min(service.slots, len(forwards))
    passes = sum(result.stats.passes for result in results)
    assert passes == pytest.approx(round(passes))
    # list scheduling: as soon as a slot is free, its work begins
    assert max(*forwards, sum(forwards) / slots) <= passes + 1e-9
    assert passes <= sum(forwards) / slots + (1 - 1 / slots) * max(forwards) + 1e-9
    for result in results:
        stats = result.stats
        assert stats.forwards / slots - 1e-9 <= stats.passes <= stats.forwards + 1e-9
        assert stats.seconds > 0
        assert stats.slots == slots
