"""The device that is none refuses what an accelerator refuses, allows what it allows, and counts what waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from freshkv.testing.far_device import NAME, FarTensor, far_device

#: what an accelerator refuses: of a tensor on it and one on the host
REFUSED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "add": lambda far, near: far + near,
    "compare": lambda far, near: near < far,
    "in place": lambda far, near: far.add_(near),
    "out": lambda far, near: torch.add(far, far, out=near),
    "cat": lambda far, near: torch.cat((far, near)),
    "stack of numbers": lambda far, near: torch.stack((far.sum(), near.sum())),
    "gather": lambda far, near: far.gather(0, near.long()),
    "index_select": lambda far, near: far.index_select(0, near.long()),
    "index of the host's": lambda far, near: near[far.long()],
    "mask of the host's": lambda far, near: near.masked_fill(far > 0, 0.0),
    "value that is written": lambda far, near: far.__setitem__(far.long(), near),
    "written on the host": lambda far, near: near.__setitem__(far > 0, 1.0),
}

#: what it allows, and for what the host waits meanwhile
ALLOWED: dict[str, tuple[Callable[[Tensor, Tensor], object], dict[str, int]]] = {
    "number": (lambda far, near: far + 1.0, {}),
    "scalar of the host": (lambda far, near: far + near[0], {}),
    "made there": (lambda far, near: far + torch.arange(3, device=far.device), {}),
    "index on the host": (lambda far, near: far[near.long()], {"index on the host": 1}),
    "mask as index": (lambda far, near: far[far > 0], {"mask as index": 1}),
    "number that is written": (lambda far, near: far.__setitem__(slice(0, 1), 5.0), {}),
    "item": (lambda far, near: far[0].item(), {"_local_scalar_dense": 1}),
    "bool": (lambda far, near: bool(far.sum()), {"_local_scalar_dense": 1}),
    "tolist": (lambda far, near: far.tolist(), {"tolist": 1}),
    "fetched": (lambda far, near: far.cpu(), {"fetched": 1}),
    "uploaded": (lambda far, near: near.to(far.device), {"uploaded": 1}),
    "uploaded without waiting": (lambda far, near: near.to(far.device, non_blocking=True), {}),
    "built": (lambda far, near: far[:2] + torch.tensor([1, 2], device=far.device), {"uploaded": 1}),
    "built by as_tensor": (lambda far, near: far[:2] + torch.as_tensor([1, 2], device=far.device), {"uploaded": 1}),
    "built by asarray": (lambda far, near: far[:2] + torch.asarray([1, 2], device=far.device), {"uploaded": 1}),
    "built like another": (lambda far, near: far[:2] + far.new_tensor([1, 2]), {"uploaded": 1}),
    "copied without waiting": (lambda far, near: far.copy_(near, non_blocking=True), {}),
    "a number to the host": (lambda far, near: near[0].copy_(far[0]), {"copied": 1}),
    "bincount": (lambda far, near: far.long().bincount(), {"bincount": 1}),
    "repetitions": (lambda far, near: far.repeat_interleave(far.long()), {"repeat_interleave": 1}),
    "copied": (lambda far, near: far.copy_(near), {"copied": 1}),
    "equal": (lambda far, near: torch.equal(far, far), {"equal": 1}),
    "nonzero": (lambda far, near: far.nonzero(), {"nonzero": 1}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_accelerator_refuses_is_refused(name: str) -> None:
    with far_device():
        far = torch.zeros(3, device=NAME)
        with pytest.raises(RuntimeError, match=r"on the host\. \(test_far_device.py, line \d+: "):
            REFUSED[name](far, torch.ones(3))


@pytest.mark.parametrize("name", ALLOWED)
def test_what_it_allows_is_allowed_and_waits_are_counted(name: str) -> None:
    work, waits = ALLOWED[name]
    with far_device() as device:
        far = torch.ones(3, device=NAME)
        device.waits.clear()
        work(far, torch.zeros(3))
        assert device.waits == Counter(waits)


def test_numbers_are_those_of_the_host() -> None:
    numbers = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    with far_device():
        far = numbers.to(NAME)
        assert isinstance(far, FarTensor)
        assert far.device.type == NAME
        part = far[1:3]
        part.mul_(2.0)  # a view writes to what it is a view of
        values, places = far.sort(dim=0)
        found = far.cpu(), values.cpu(), places.cpu()
    expected = numbers.clone()
    expected[1:3] *= 2.0
    assert torch.equal(found[0], expected)
    assert torch.equal(found[1], expected.sort(dim=0).values)
    assert torch.equal(found[2], expected.sort(dim=0).indices)


def test_an_operation_in_place_gives_back_what_it_was_given() -> None:
    with far_device():
        far = torch.ones(3, device=NAME)
        assert far.add_(1.0) is far
        assert torch.mul(far, 2.0, out=far) is far
        assert far.tolist() == [4.0, 4.0, 4.0]


def test_while_a_pass_is_recorded_nothing_may_wait() -> None:
    with far_device() as device:
        far = torch.ones(3, device=NAME)
        device.capturing = True
        _ = far * 2.0
        with pytest.raises(RuntimeError, match="the host must not wait while a pass is recorded"):
            far.tolist()


def test_a_tensor_that_outlives_its_device_says_so() -> None:
    with far_device():
        far = torch.ones(3, device=NAME)
    with pytest.raises(RuntimeError, match="after the device had been left"):
        _ = far + 1.0
