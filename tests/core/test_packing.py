"""Continuous batching: who is served when, what it costs, and who fails alone."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import freshkv
from freshkv import FreshkvError, Request, RequestResult
from freshkv.core.errors import InputError, NumericalError
from freshkv.testing import NetworkShape, WatchedNetwork, tiny_network
from tests.core.networks import BrokenByToken
from tests.core.requests import Service, assert_as_alone
from tests.core.test_properties_batch import Uneven
from tests.core.test_properties_packing import uneven_service

SHAPE = NetworkShape(vocabulary=33)
#: a prompt of each of these lengths, and a response of as many positions as stand beside it
LENGTHS = ((3, 16), (9, 4), (2, 4), (7, 8), (4, 4), (8, 12), (5, 4), (6, 8), (2, 4))


def requests(lengths: tuple[tuple[int, int], ...] = LENGTHS) -> list[Request]:
    return [
        Request(list(range(1, prompt + 1)), gen_length=gen_length, block_length=4, seed=number)
        for number, (prompt, gen_length) in enumerate(lengths)
    ]


def test_results_come_as_requests_are_finished_and_others_take_their_slots() -> None:
    served = freshkv.generate_many(tiny_network(SHAPE), requests(), batch_size=2)
    # the first request takes part in 16 passes, beside three others; with the last of them it makes room for two
    assert [result.index for result in served] == [1, 2, 0, 3, 4, 6, 5, 7, 8]


def test_the_given_order_is_the_order_of_service() -> None:
    alike = requests(((3, 4),) * 5)
    for slots in (1, 2, 5):
        served = freshkv.generate_many(tiny_network(SHAPE), alike, batch_size=slots)
        assert [result.index for result in served] == [0, 1, 2, 3, 4]


def test_one_token_a_step_takes_as_many_passes_as_the_slots_allow_and_no_more() -> None:
    longest_first = sorted(requests(), key=lambda request: -request.gen_length)
    total = sum(request.gen_length for request in longest_first)  # 64
    for slots in (1, 2, 4):
        results = list(freshkv.generate_many(tiny_network(SHAPE), longest_first, batch_size=slots))
        assert round(sum(result.stats.passes for result in results)) == math.ceil(total / slots)
        assert sum(result.stats.forwards for result in results) == total
    results = list(freshkv.generate_many(tiny_network(SHAPE), longest_first, batch_size=9))
    assert round(sum(result.stats.passes for result in results)) == 16  # the longest alone decides


def plain_batches(service: Service, policy: str, decoder: object) -> tuple[int, int]:
    """Passes and rows where batches are decoded one after the other, padded to the longest prompt and response."""
    passes = rows = 0
    for start in range(0, len(service.requests), service.slots):
        batch = service.requests[start : start + service.slots]
        width = max(len(request.input_ids) for request in batch)
        ids = [[0] * (width - len(request.input_ids)) + list(request.input_ids) for request in batch]
        mask = [[0] * (width - len(request.input_ids)) + [1] * len(request.input_ids) for request in batch]
        run = freshkv.generate(
            service.network,
            torch.tensor(ids),
            torch.tensor(mask),
            policy=policy,
            decoder=decoder,
            gen_length=max(request.gen_length for request in batch),
            block_length=4,
            stop_at_eos=service.eos_token_id is not None,
            eos_token_id=service.eos_token_id,
        )
        passes, rows = passes + run.stats.forwards, rows + run.stats.rows_computed
    return passes, rows


@pytest.mark.parametrize("policy", ["none", "dual", "dllm:kp=4,kr=2", "d2cache:current_k=2"])
@pytest.mark.parametrize("decoder", ["confidence", Uneven()], ids=["even", "uneven"])
def test_packing_takes_fewer_passes_and_fewer_rows_than_plain_batches(policy: str, decoder: object) -> None:
    service = Service(shape=SHAPE, requests=tuple(requests()), slots=3)
    results = service.serve(policy, decoder)
    passes = sum(result.stats.passes for result in results)
    rows = sum(result.stats.rows_computed for result in results)
    plain_passes, plain_rows = plain_batches(service, policy, decoder)
    assert passes <= 0.75 * plain_passes
    assert rows <= 0.75 * plain_rows
    # nobody can do with less: every request's own steps, shared by as many as there are slots
    forwards = [result.stats.forwards for result in results]
    assert max(*forwards, math.ceil(sum(forwards) / 3)) <= round(passes)


@pytest.mark.parametrize("policy", ["none", "dual", "dllm:kp=4,kr=2", "d2cache:current_k=2", "oracle"])
def test_the_rows_that_are_counted_are_those_that_go_through_the_network(policy: str) -> None:
    service = uneven_service(slots=3)
    network = WatchedNetwork(service.network)
    results = service.serve(policy, Uneven(), network=network)
    counted = sum(result.stats.rows_computed for result in results)
    computed = sum(network.by_layer("feed_forward")) / network.network_spec.layers
    # the uncached forward beside an oracle leaves padding out, too, and counts nowhere
    truth = sum(result.stats.forwards * result.request.columns for result in results) if policy == "oracle" else 0
    assert counted <= computed <= counted + truth


def until_error(served: Iterator[RequestResult]) -> tuple[list[RequestResult], FreshkvError | None]:
    """What was yielded, and what was raised then."""
    results = []
    try:
        for result in served:
            results.append(result)  # noqa: PERF402 - what came before an error is what counts
    except FreshkvError as error:
        return results, error
    return results, None


def test_a_request_whose_logits_are_no_numbers_fails_alone() -> None:
    service = uneven_service(slots=3)
    ill = Request((1, 31, 2), gen_length=6, block_length=3)
    service = Service(shape=service.shape, requests=(*service.requests[:2], ill, *service.requests[2:]), slots=3)
    network = BrokenByToken(service.network, 31)
    messages: list[str] = []
    serving = service.serving("d2cache:current_k=2", Uneven(), network=network, on_message=messages.append)
    results, error = until_error(serving.serve(service.requests, 3))
    assert sorted(result.index for result in results) == [0, 1, *range(3, 10)]
    for result in results:
        assert_as_alone(result, service.alone(result.request, "d2cache:current_k=2", Uneven(), network=network))
    nan = "The model's logits are NaN (or infinite) in request 2 at step 0."
    assert messages == [f"{nan} It is given up; the others go on."]
    assert isinstance(error, NumericalError)
    assert str(error).startswith(f"{nan} Try another dtype")


def test_where_all_fail_it_is_the_model_and_the_rest_is_not_tried() -> None:
    network, messages = BrokenByToken(tiny_network(SHAPE), 31), list[str]()
    ill = [Request([1, 31], gen_length=4)] * 40
    served = freshkv.generate_many(network, ill, batch_size=3, on_message=messages.append)
    results, error = until_error(served)
    assert results == []
    assert len(messages) == 9, "three batches"
    assert isinstance(error, NumericalError)
    assert str(error).endswith("None was finished, and no more were tried.")


def test_a_sound_request_shows_that_it_is_not_the_model() -> None:
    network, messages = BrokenByToken(tiny_network(SHAPE), 31), list[str]()
    ill = [Request([1, 31], gen_length=4)] * 12
    sound = Request([1, 2], gen_length=1)
    served = freshkv.generate_many(network, [sound, *ill, sound], batch_size=2, on_message=messages.append)
    results, error = until_error(served)
    assert [result.index for result in results] == [0, 13]
    assert len(messages) == 12
    assert str(error).endswith("All others are finished.")


def test_that_a_request_failed_is_a_warning_where_nobody_listens() -> None:
    network = BrokenByToken(tiny_network(SHAPE), 31)
    served = freshkv.generate_many(network, [Request([1, 31], gen_length=4), Request([1], gen_length=4)], batch_size=1)
    with pytest.warns(UserWarning, match="request 0 at step 0. It is given up"):
        assert next(served).index == 1
    with pytest.raises(NumericalError):
        next(served)


def test_no_requests_give_no_results() -> None:
    assert list(freshkv.generate_many(tiny_network(SHAPE), [])) == []


def test_nothing_is_decoded_before_it_is_asked_for() -> None:
    served = freshkv.generate_many(tiny_network(SHAPE), iter(requests()), batch_size=2)
    assert next(served).index == 1
    served.close()


def test_a_result_has_its_own_trace_only_where_it_is_wanted() -> None:
    for keep in (False, True):
        for result in freshkv.generate_many(tiny_network(SHAPE), requests(), batch_size=2, keep_traces=keep):
            assert (result.trace is not None) == keep


def test_a_request_takes_lists_and_tensors() -> None:
    assert Request([1, 2]) == Request(torch.tensor([1, 2])) == Request((1, 2))
    assert Request([1, 2], gen_length=4).columns == 6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Request(torch.tensor([[1, 2]])), r"input_ids has shape \(1, 2\); expected \[prompt\]\. A request is"),
        (lambda: Request(torch.tensor([1.0])), "input_ids has dtype float32; expected token ids"),
        (lambda: Request("1 2"), "input_ids is '1 2'; expected token ids"),
        (lambda: Request([1, 2.5]), r"input_ids is \[1, 2\.5\]"),
        (lambda: Request([1], seed=None), "seed is None; expected a whole number"),
    ],
)
def test_a_request_that_is_none_is_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Request([1, 2, 99]), "Request 1: input_ids holds token id 99; the model's vocabulary is 0 to 32"),
        (Request([]), "Request 1: input_ids has shape"),
        (Request([1], gen_length=0), "Request 1: gen_length is 0"),
        (Request([1], gen_length=6, block_length=4), "Request 1: block_length 4 does not divide gen_length 6"),
        ([1, 2], r"Request 1 is a list; expected a freshkv\.Request"),
    ],
)
def test_a_request_that_cannot_be_decoded_is_named_before_any_work(wrong: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        freshkv.generate_many(tiny_network(SHAPE), [Request([1]), wrong], batch_size=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1, or None"),
        ({"batch_size": True}, "batch_size is True"),
        ({"memory_share": 0}, "memory_share is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"policy": "prefx"}, "Did you mean 'prefix'"),
        ({"stop_at_eos": True, "eos_token_id": 32}, "the model's mask token"),
    ],
)
def test_other_arguments_are_checked_before_any_work_too(options: dict[str, object], message: str) -> None:
    with pytest.raises((InputError, LookupError), match=message):
        freshkv.generate_many(tiny_network(SHAPE), [Request([1])], **options)
