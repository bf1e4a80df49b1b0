"""An accelerator that is none: what holds on one can be tested on any machine.

Its tensors lie in the host's memory and claim another device. As on a real one, an operation on tensors of both is an
error; and every operation for which the host would wait until the device has done all it was told is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
from attrs import frozen
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from freshkv.compare.drift import measure_drift
from freshkv.compare.drift_record import TENSORS
from freshkv.core.canvas import Canvas
from freshkv.core.engine import Engine
from freshkv.core.generate import run_canvas
from freshkv.core.generate_many import generate_many
from freshkv.core.graphs import Record, Recording, Work
from freshkv.core.inspect import Progress
from freshkv.core.loop import DenoisingLoop, RunOptions
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.request import Request
from freshkv.core.sampling import Sampling
from freshkv.testing import NetworkShape, tiny_network

NAME = "far"
ATEN = torch.ops.aten

#: operations that take tensors of both: where they index or copy
MIXING = {ATEN.index, ATEN.index_put_, ATEN._index_put_impl_, ATEN.copy_, ATEN._to_copy}
#: operations whose result the host needs, be it a number or a shape
WAITING = {ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select, ATEN.equal, ATEN._unique2}


class FarTensor(torch.Tensor):
    """A tensor on the far device; ``near`` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=torch.device(NAME, 0),
        )
        far.near = near
        return far

    def __repr__(self) -> str:
        return f"FarTensor({self.near})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.tolist:  # subclasses have none
            FarDevice.active.wait("tolist")
            return args[0].near.tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return FarDevice.active.compute(func, args, kwargs or {})


class FarDevice(TorchDispatchMode):
    """While it is entered, the far device can be used; it counts for what the host waited."""

    active: FarDevice

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.capturing = False
        FarDevice.active = self

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.compute(func, args, kwargs or {})

    def wait(self, what: str) -> None:
        """The host waits for ``what``."""
        if self.capturing:
            raise RuntimeError(f"{what}: the host must not wait while a pass is recorded.")
        self.waits[what] += 1

    def record(self, work: Work) -> Recording:
        """A pass that is replayed by running it again, during which nothing may wait."""

        def run() -> tuple[Tensor, ...]:
            self.capturing = True
            try:
                return work()
            finally:
                self.capturing = False

        outputs = run()

        def replay() -> None:
            for output, again in zip(outputs, run(), strict=True):
                output.copy_(again)

        return Recording(replay, outputs)

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation, where its tensors are."""
        operation, target = func.overloadpacket, kwargs.get("device")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = [tensor for tensor in tensors if isinstance(tensor, FarTensor)]
        near = [tensor for tensor in tensors if not isinstance(tensor, FarTensor) and tensor.dim() > 0]
        if far and near and not _may_mix(operation, args):
            raise RuntimeError(
                f"{func}: tensors of {[list(each.shape) for each in far]} are on the device, {near} not."
            )
        arrives = bool(far) if target is None else torch.device(target).type == NAME
        what = _waits_for(operation, args, kwargs, far, arrives=arrives)
        if what is not None:
            self.wait(what)
        if target is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        if func._schema.is_mutable and tensors:
            return kwargs.get("out", args[0])
        return tree_map(lambda each: FarTensor(each) if arrives and isinstance(each, Tensor) else each, result)


class Built(TorchFunctionMode):
    """``torch.tensor`` builds on the host and copies, where no mode of dispatch sees it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        options = dict(kwargs or {})
        if func is torch.tensor and options.get("device") is not None:
            device = options.pop("device")
            return func(*args, **options).to(device)
        return func(*args, **options)


def _near(leaf: Any) -> Any:
    return leaf.near if isinstance(leaf, FarTensor) else leaf


def _may_mix(operation: Any, args: tuple[Any, ...]) -> bool:
    """Indices may lie on the host, values that are written may not."""
    if operation in (ATEN.index_put_, ATEN._index_put_impl_):
        return isinstance(args[0], FarTensor) == isinstance(args[2], FarTensor) or args[2].dim() == 0
    return operation in MIXING


def _waits_for(operation: Any, args: Any, kwargs: Any, far: list[FarTensor], *, arrives: bool) -> str | None:
    if operation is ATEN._to_copy and bool(far) != arrives:
        blocks = bool(far) or not kwargs.get("non_blocking", False)
        return ("fetched" if far else "uploaded") if blocks else None
    if operation is ATEN.copy_ and isinstance(args[0], FarTensor) != isinstance(args[1], FarTensor):
        return "copied" if args[1].dim() > 0 else None
    if operation in (ATEN.index, ATEN.index_put_, ATEN._index_put_impl_) and far:
        indices = [index for index in args[1] if index is not None]
        if any(not isinstance(index, FarTensor) for index in indices):
            return "index on the host"
        return "mask as index" if any(index.dtype == torch.bool for index in indices) else None
    return str(operation) if far and operation in WAITING else None


@contextmanager
def far_device() -> Iterator[FarDevice]:
    """Enter it. Registers the device for good, so that a process of its own is the place for it."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    if torch._C._get_privateuse1_backend_name() != NAME:
        _setup_privateuseone_for_python_backend(NAME)
    # a view of a tensor that was made in inference mode cannot be wrapped
    with patch.object(Engine, "_inference", lambda engine: nullcontext()), FarDevice() as device, Built():
        yield device


@frozen
class Outcome:
    """The same decoding on both devices."""

    near: list[list[int]]
    far: list[list[int]]
    steps: list[Counter[str]]  #: for what the host waited in each step
    afterwards: Counter[str]  #: and behind the last one, until the run was there


def decode(
    *,
    shape: NetworkShape | None = None,
    policy: str = "dual",
    decoder: str = "confidence",
    batch: int = 1,
    eos_token_id: int | None = None,
    record: bool = False,
    **sampling: float,
) -> Outcome:
    """Decode ``batch`` prompts, the second one padded, with a network of its own; ``record`` its passes."""
    network = deepcopy(tiny_network(NetworkShape() if shape is None else shape))
    prompts = torch.randint(14, (batch, 9), generator=torch.Generator().manual_seed(3))
    padding = torch.ones_like(prompts)
    padding[1:2, :4] = 0
    options = {
        "policy": resolve_policy(policy),
        "decoder": resolve_decoder(decoder),
        "sampling": Sampling(**sampling),
        "seeds": tuple(range(batch)),
    }

    def run(record: Record | None = None) -> list[list[int]]:
        canvas = Canvas.create(prompts, padding, 16, 8, network.network_spec, network.device, eos_token_id)
        return run_canvas(network, canvas, RunOptions(**options, record=record)).sequences.tolist()

    near = run()
    with far_device() as device:
        network.to(NAME)
        steps: list[Counter[str]] = []
        step = DenoisingLoop.step

        def watched(loop: DenoisingLoop) -> Progress:
            device.waits.clear()
            progress = step(loop)
            steps.append(device.waits.copy())
            device.waits.clear()
            return progress

        with patch.object(DenoisingLoop, "step", watched):
            far = run(device.record if record else None)
        device.waits.subtract({"tolist": 1})  # of the sequences, just now
        return Outcome(near, far, steps, +device.waits)


def serve(*, policy: str) -> tuple[list[list[int]], list[list[int]]]:
    """Requests of several lengths through two slots, on the host and on the device."""
    network = deepcopy(tiny_network(NetworkShape()))
    requests = [Request([1] * length, gen_length=8, block_length=4) for length in (3, 7, 5, 9)]

    def served() -> list[list[int]]:
        results = sorted(generate_many(network, requests, policy=policy, batch_size=2), key=lambda each: each.index)
        return [result.sequence.tolist() for result in results]

    near = served()
    with far_device():
        network.to(NAME)
        return near, served()


def drift_of(*, policy: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``measure_drift`` finds on the host and on the device, by name."""
    network = deepcopy(tiny_network(NetworkShape()))
    prompt = torch.randint(14, (1, 9), generator=torch.Generator().manual_seed(3))

    def measured() -> dict[str, Any]:
        drift = measure_drift(network, prompt, policy=policy, gen_length=8, block_length=4)
        return {name: getattr(drift, name).tolist() for name in TENSORS}

    near = measured()
    with far_device():
        network.to(NAME)
        return near, measured()
