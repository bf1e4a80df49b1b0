"""Memory that runs out: fewer slots, a message, and nothing lost."""

from __future__ import annotations

import weakref

import pytest
import torch
from attrs import frozen

import freshkv
from freshkv import Commit, Decoder, Prediction, StepView
from freshkv.core.errors import DecoderError, DeviceMemoryError, FreshkvError
from freshkv.core.out_of_memory import shortage
from freshkv.core.store import RowStore
from freshkv.testing import tiny_network
from tests.core.networks import SmallMemory, cpu_has_no_memory, cuda_has_no_memory
from tests.core.requests import assert_as_alone
from tests.core.test_packing import SHAPE, requests, until_error
from tests.core.test_properties_batch import Uneven
from tests.core.test_properties_packing import uneven_service

FAILURES = {"cuda": cuda_has_no_memory, "cpu": cpu_has_no_memory}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("policy", ["dual", "dllm:kp=3,kr=2", "d2cache:current_k=2"])
def test_slots_are_halved_and_every_request_is_still_decoded_as_alone(failure: str, policy: str) -> None:
    service = uneven_service(slots=8)
    # the eight canvases that come first have 87 columns together; any four of all, at most 59
    network = SmallMemory(service.network, 60, FAILURES[failure])
    messages: list[str] = []
    results = service.serve(policy, Uneven(), network=network, on_message=messages.append)
    assert sorted(result.index for result in results) == list(range(9))
    for result in results:
        assert_as_alone(result, service.alone(result.request, policy, Uneven()))
        assert result.stats.slots == 4
    (message,) = messages
    size = "2.50 GiB" if failure == "cuda" else "144115188075855872 bytes"
    assert message == (
        f"Out of memory: tried to allocate {size}, with 8 sequences decoded together. Going on with 4; 8 that were not "
        "finished begin again."
    )


def test_what_was_finished_before_is_kept_and_what_was_under_way_comes_first() -> None:
    given = requests(((3, 4), (3, 8), (3, 8), (3, 8), (30, 8), (3, 4)))
    # 40 rows in the first pass; after the fourth, the long one is admitted: 38 rows, and 11 of each of the others
    network = SmallMemory(tiny_network(SHAPE), 45, cuda_has_no_memory)
    messages: list[str] = []
    served = freshkv.generate_many(network, given, policy="dual", batch_size=4, on_message=messages.append)
    results = list(served)
    assert [result.index for result in results] == [0, 1, 2, 3, 4, 5]
    assert [result.stats.slots for result in results] == [4, 2, 2, 1, 1, 1]
    assert [message.partition(", with ")[2] for message in messages] == [
        "4 sequences decoded together. Going on with 2; 4 that were not finished begin again.",
        "2 sequences decoded together. Going on with 1; 2 that were not finished begin again.",
    ]


def test_one_that_does_not_fit_by_itself_is_an_error_that_says_what_and_what_to_do() -> None:
    given = requests(((3, 4), (3, 4), (30, 8), (3, 4)))
    network = SmallMemory(tiny_network(SHAPE), 37, cpu_has_no_memory)
    messages: list[str] = []
    results, error = until_error(freshkv.generate_many(network, given, batch_size=2, on_message=messages.append))
    assert [result.index for result in results] == [0, 1]
    assert len(messages) == 1
    assert isinstance(error, DeviceMemoryError)
    assert isinstance(error, MemoryError)
    for words in (
        "Request 2 (30 prompt and 8 response tokens) does not fit the memory of cpu by itself: out of memory: tried to "
        "allocate 144115188075855872 bytes. It takes about ",
        " are free. Shorten it, load the model in bfloat16",
        "results that came before this error are whole",
    ):
        assert words in str(error)


def test_that_slots_were_halved_is_a_warning_where_nobody_listens() -> None:
    network = SmallMemory(tiny_network(SHAPE), 20, cuda_has_no_memory)
    with pytest.warns(UserWarning, match="Going on with 1; 2 that were not finished begin again"):
        assert len(list(freshkv.generate_many(network, requests(((8, 4), (8, 4))), batch_size=2))) == 2


def test_memory_may_be_lacking_for_the_caches_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    created = RowStore.__init__

    def create(store: RowStore, spec: object, batch: int, *others: object, **options: object) -> None:
        if batch > 2:
            cpu_has_no_memory()
        created(store, spec, batch, *others, **options)

    monkeypatch.setattr(RowStore, "__init__", create)
    messages: list[str] = []
    served = freshkv.generate_many(tiny_network(SHAPE), requests(), batch_size=9, on_message=messages.append)
    assert {result.stats.slots for result in served} == {2}
    assert [message.split("with ")[1][:1] for message in messages] == ["9", "4"]


@frozen
class Greedy(Decoder):
    """Asks for memory that is not there while more than two sequences are looked at."""

    name = "test-greedy"

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        if view.shape[0] > 2:
            cpu_has_no_memory()
        return Commit(prediction.positions, prediction.tokens)


def test_memory_may_be_lacking_for_a_decoder_or_policy() -> None:
    messages: list[str] = []
    served = freshkv.generate_many(
        tiny_network(SHAPE), requests(((3, 4),) * 5), decoder=Greedy(), batch_size=4, on_message=messages.append
    )
    assert len(list(served)) == 5
    assert len(messages) == 1


def test_other_errors_are_none_of_this() -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    network = SmallMemory(tiny_network(SHAPE), 20, fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(freshkv.generate_many(network, requests(((8, 4), (8, 4))), batch_size=2))


@pytest.mark.parametrize(
    ("error", "size"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0"), "20.00 MiB"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ""),
        (RuntimeError("CUDA error: out of memory"), ""),
        (RuntimeError("MPS backend out of memory (...). Tried to allocate 2.0 GB on"), "2.0 GB"),
        (MemoryError(), ""),
    ],
)  # fmt: skip
def test_every_allocator_has_its_own_way_to_say_it(error: Exception, size: str) -> None:
    words = f": tried to allocate {size}" if size else ""
    assert shortage(error) == f"out of memory{words}"
    wrapped = DecoderError("it raised")
    wrapped.__cause__ = error
    assert shortage(wrapped) == f"out of memory{words}"


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory"), FreshkvError("x")])
def test_no_other_error_is_taken_for_it(error: Exception) -> None:
    assert shortage(error) is None


def test_a_lack_of_memory_releases_what_the_abandoned_batch_held() -> None:
    """While the slots are halved nothing of the first attempt may be alive, or the second has no room."""
    stores: list[weakref.ref[RowStore]] = []
    alive: list[int] = []
    network = SmallMemory(tiny_network(SHAPE), 30, cuda_has_no_memory)

    def listen(message: str) -> None:
        alive.append(sum(store() is not None for store in stores))

    created = RowStore.__init__

    def create(store: RowStore, *arguments: object, **options: object) -> None:
        created(store, *arguments, **options)
        stores.append(weakref.ref(store))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowStore, "__init__", create)
        list(freshkv.generate_many(network, requests(), batch_size=8, on_message=listen))
    assert len(alive) >= 1
    assert set(alive) == {0}
