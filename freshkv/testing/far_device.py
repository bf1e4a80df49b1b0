"""An accelerator that is none: what goes wrong on one shows on any machine.

Its tensors lie in the host's memory and claim another device. As on a real one, an operation on tensors of both is an
error; and every operation for which the host would wait until the device has done all it was told is counted.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: torch's own name for a device without numbers: here they are beside it
NAME = "meta"

_ATEN = torch.ops.aten
_WRITES_AT = {_ATEN.index_put_, _ATEN._index_put_impl_}
_INDEXES = {_ATEN.index, *_WRITES_AT}
#: operations that take tensors of both, besides those that index
_MIXES = {_ATEN.copy_, _ATEN._to_copy}
#: operations whose result the host needs, be it a number or a shape
_FETCHES = {
    *(_ATEN._local_scalar_dense, _ATEN.nonzero, _ATEN.masked_select, _ATEN.equal, _ATEN._unique2),
    *(_ATEN.bincount, _ATEN.repeat_interleave),
}
#: operations that refuse a single number of the host, too
_STRICT = {_ATEN.stack, _ATEN.cat}
#: functions that build tensors of numbers
_BUILD = {torch.tensor, torch.as_tensor, torch.asarray}


class FarTensor(torch.Tensor):
    """A tensor on the far device; ``near`` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        """Around ``near``, which is not copied."""
        far: FarTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            near.size(),
            strides=near.stride(),
            storage_offset=near.storage_offset(),
            dtype=near.dtype,
            device=torch.device(NAME),
        )
        far.near = near
        return far

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """The numbers."""
        return f"FarTensor({self.near})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """``tolist``, which subclasses do not have; the rest as ever."""
        if func is torch.Tensor.tolist:
            FarDevice.entered().wait("tolist")
            return args[0].near.tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Where the device's own mode is not asked first."""
        return FarDevice.entered().compute(func, args, kwargs or {})


class FarDevice(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, the far device can be used; it counts for what the host waited."""

    _entered: ClassVar[list[FarDevice]] = []

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()  #: by what it waited for
        self.capturing = False  #: whether nothing may wait, as while a CUDA graph is recorded

    @classmethod
    def entered(cls) -> FarDevice:
        """The one that is in use."""
        if not cls._entered:
            raise RuntimeError("A tensor of the far device was used after the device had been left.")
        return cls._entered[-1]

    def __enter__(self) -> FarDevice:
        """Use it."""
        self._entered.append(self)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *reason: Any) -> None:
        """Leave it."""
        super().__exit__(*reason)  # type: ignore[no-untyped-call]
        self._entered.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation."""
        return self.compute(func, args, kwargs or {})

    def wait(self, what: str) -> None:
        """The host waits for ``what``. Raises RuntimeError while it must not."""
        if self.capturing:
            raise RuntimeError(f"{what}: the host must not wait while a pass is recorded. {_where()}")
        self.waits[what] += 1

    def compute(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation, where its tensors are. Raises RuntimeError if that is not one place."""
        operation, target = func.overloadpacket, kwargs.get("device")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        far = [tensor for tensor in tensors if isinstance(tensor, FarTensor)]
        near = [tensor for tensor in tensors if not isinstance(tensor, FarTensor) and _counts(tensor, operation)]
        if far and near and not _may_mix(operation, args):
            both = f"{_shapes(far)} on the device of the run, {_shapes(near)} on the host"
            raise RuntimeError(f"{operation.__name__}: {both}. {_where()}")
        arrives = bool(far) if target is None else torch.device(target).type == NAME
        what = _waits_for(operation, args, kwargs, far, arrives=arrives)
        if what is not None:
            self.wait(what)
        if target is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*tree_map(_near, args), **tree_map(_near, kwargs))
        if not arrives:
            return result
        known = {id(tensor.near): tensor for tensor in far}  # an operation in place returns what it was given

        def placed(each: Any) -> Any:
            if not isinstance(each, Tensor):
                return each
            return known[id(each)] if id(each) in known else FarTensor(each)

        return tree_map(placed, result)


class _Built(TorchFunctionMode):
    """What is built of numbers is built on the host and copied, where no other mode sees it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        device = options.get("device")
        if func is torch.Tensor.new_tensor:
            like, *values = args
            device = like.device if device is None else device
            options, args, func = {"dtype": like.dtype, **options}, tuple(values), torch.tensor
        if func not in _BUILD or device is None or any(isinstance(value, Tensor) for value in args):
            return func(*args, **options)
        options.pop("device", None)
        return func(*args, **options).to(device)


@contextmanager
def far_device() -> Iterator[FarDevice]:
    """Use it: ``network.to("meta")`` then moves a network there, numbers and all.

    What is decoded with that network needs ``RunOptions.inference_mode`` False, because tensors that are made in that
    mode cannot be wrapped.
    """
    with FarDevice() as device, _Built():
        yield device


def _near(leaf: Any) -> Any:
    return leaf.near if isinstance(leaf, FarTensor) else leaf


def _counts(near: Tensor, operation: Any) -> bool:
    """Whether it matters that this tensor lies on the host: a single number mostly does not."""
    return near.dim() > 0 or operation in _STRICT


def _shapes(tensors: list[Any]) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in tensors)


def _where() -> str:
    """The line outside of torch and of this file that asked."""
    library = str(Path(torch.__file__).parent)
    for frame in reversed(traceback.extract_stack()):
        if frame.filename != __file__ and not frame.filename.startswith(library):
            return f"({Path(frame.filename).name}, line {frame.lineno}: {frame.line})"
    return ""


def _may_mix(operation: Any, args: tuple[Any, ...]) -> bool:
    """Of a tensor on the device indices may lie on the host, values that are written may not."""
    if operation in _INDEXES:
        written = args[2] if operation in _WRITES_AT else args[0]
        return isinstance(args[0], FarTensor) and (isinstance(written, FarTensor) or written.dim() == 0)
    return operation in _MIXES


def _waits_for(operation: Any, args: Any, kwargs: Any, far: list[FarTensor], *, arrives: bool) -> str | None:
    if operation is _ATEN._to_copy and bool(far) != arrives:
        blocks = bool(far) or not kwargs.get("non_blocking", False)
        return ("fetched" if far else "uploaded") if blocks else None
    if operation is _ATEN.copy_ and isinstance(args[0], FarTensor) != isinstance(args[1], FarTensor):
        fetches, blocks = isinstance(args[1], FarTensor), not (args[2] if len(args) > 2 else False)
        return "copied" if fetches or (blocks and args[1].dim() > 0) else None
    if operation in _INDEXES and far:
        indices = [index for index in args[1] if index is not None]
        if any(not isinstance(index, FarTensor) for index in indices):
            return "index on the host"
        return "mask as index" if any(index.dtype == torch.bool for index in indices) else None
    return operation.__name__ if far and operation in _FETCHES else None
