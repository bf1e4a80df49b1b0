"""Weights laid out beforehand as the CPU's matrix library reads them: products with few rows get much faster.

A step that refreshes 32 rows spends a large part of a product on bringing the weights into the order that the kernels
of oneDNN want. Here this is done once. Matrices that meet the same rows are put side by side, so that one product does
the work of two. With "compiled" the products are freshkv's own (see ``freshkv.models.compiled``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, cast

import torch
from attrs import frozen
from torch import Tensor, nn

from freshkv.core.errors import InputError
from freshkv.models.compiled import CompiledLayout, compile_all

#: rows that the layout is chosen for: about what a cached step refreshes. Any number can be multiplied
ROWS = 32

#: floating dtypes that the layout exists for
DTYPES = (torch.float32, torch.bfloat16)

#: True: for the products of oneDNN, which every build of torch for x86 has; "compiled": for freshkv's own
Prepacked = Literal[True, "compiled"]


class Layout(Protocol):
    """A weight [outputs, inputs] in the order in which a product reads it, and its bias."""

    def multiply(self, rows: Tensor) -> Tensor:
        """``rows`` [n, inputs] to [n, outputs]."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight."""
        ...

    def weight(self) -> Tensor:
        """The weight in the ordinary layout, [outputs, inputs]; a copy."""
        ...


@frozen(eq=False)
class LibraryLayout:
    """The layout of oneDNN."""

    _packed: Tensor
    _bias: Tensor | None

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None) -> LibraryLayout:
        """``weight`` is [outputs, inputs], ``bias`` [outputs]."""
        return LibraryLayout(torch.ops.mkldnn._reorder_linear_weight(weight, ROWS), bias)

    def multiply(self, rows: Tensor) -> Tensor:
        """See ``Layout``."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return product

    @property
    def dtype(self) -> torch.dtype:
        """See ``Layout``."""
        return self._packed.dtype

    def weight(self) -> Tensor:
        """See ``Layout``."""
        weight: Tensor = self._packed.to_dense()
        return weight


class PrepackedWeight:
    """The weights of linear layers that meet the same rows, side by side, laid out for their products."""

    def __init__(self, linears: Sequence[nn.Linear], layout: Prepacked = True) -> None:
        self.outputs = [linear.out_features for linear in linears]
        weight = torch.cat([linear.weight.detach() for linear in linears])
        self._biases = tuple(None if linear.bias is None else linear.bias.detach().clone() for linear in linears)
        bias = None
        if any(each is not None for each in self._biases):
            parts = zip(self._biases, self.outputs, strict=True)
            bias = torch.cat([weight.new_zeros(outputs) if each is None else each for each, outputs in parts])
        self.compiled = layout == "compiled"
        self._layout: Layout = (CompiledLayout if self.compiled else LibraryLayout).of(weight, bias)

    def __call__(self, rows: Tensor) -> Tensor:
        """``rows`` [n, inputs] times all matrices: [n, all outputs]."""
        return self._layout.multiply(rows)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self._layout.dtype

    def weight_of(self, part: int) -> Tensor:
        """One matrix in the ordinary layout, [outputs, inputs]; a copy."""
        return torch.split(self._layout.weight(), self.outputs)[part].clone()

    def bias_of(self, part: int) -> Tensor | None:
        """[outputs], or None."""
        return self._biases[part]


class PrepackedLinear(nn.Module):
    """Stands in for an ``nn.Linear``, under its name. Its weight is no parameter: it can be saved, not trained.

    ``product`` holds the weight, perhaps beside others; ``part`` is the place of this one. ``torch.nn.Module.to`` with
    another device or dtype raises InputError.
    """

    def __init__(self, product: PrepackedWeight, part: int) -> None:
        super().__init__()
        self.product, self.part = product, part
        self.out_features = product.outputs[part]

    def forward(self, rows: Tensor) -> Tensor:
        """[rows, inputs] to [rows, outputs]."""
        product = self.product(rows)
        return product if len(self.product.outputs) == 1 else torch.split(product, self.product.outputs, -1)[self.part]

    def extra_repr(self) -> str:
        """Outputs and neighbours, for ``print(model)``."""
        return f"out_features={self.out_features}, side by side: {len(self.product.outputs)}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.product.weight_of(self.part)
        bias = self.product.bias_of(self.part)
        if bias is not None:
            destination[f"{prefix}bias"] = bias

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PrepackedLinear:
        before = torch.empty(0, dtype=self.product.dtype)
        after = fn(before)
        if (after.device, after.dtype) != (before.device, before.dtype):
            raise InputError(
                f"Prepacked weights are {_name(before.dtype)} on the CPU and cannot become {_name(after.dtype)} on "
                f"{after.device}. Load the model again with that device and dtype."
            )
        return self


class CanBeCompiled:
    """A module for which freshkv has code of its own, used once ``prepack`` has set ``compiled``."""

    compiled: bool = False


def products(rows: Tensor, *linears: nn.Module) -> tuple[Tensor, ...]:
    """What linear layers make of the same ``rows`` [n, inputs]: [n, its outputs] each. One product if prepacked so."""
    together = _together(linears)
    if together is None:
        return tuple(linear(rows) for linear in linears)
    return torch.split(together(rows), together.outputs, dim=-1)


def joined(rows: Tensor, *linears: nn.Module) -> Tensor:
    """The same side by side: [n, all outputs]."""
    together = _together(linears)
    return torch.cat([linear(rows) for linear in linears], dim=-1) if together is None else together(rows)


def is_compiled(*linears: nn.Module) -> bool:
    """Whether freshkv's own code works on what these layers make."""
    return all(isinstance(linear, PrepackedLinear) and linear.product.compiled for linear in linears)


def _together(linears: Sequence[nn.Module]) -> PrepackedWeight | None:
    """The weight that holds exactly ``linears``, in this order."""
    first = linears[0]
    if not isinstance(first, PrepackedLinear) or len(first.product.outputs) != len(linears):
        return None
    held = [(linear.product, linear.part) for linear in linears if isinstance(linear, PrepackedLinear)]
    return first.product if held == [(first.product, part) for part in range(len(linears))] else None


def prepack(model: nn.Module, layout: Prepacked = True) -> None:
    """Lay out the weights of all linear layers of ``model``, in place; what they held before is freed.

    Results change by rounding alone. A layer class may name attributes that meet the same rows in ``SIDE_BY_SIDE``. An
    output head that shares its weight with the embedding stays as it is, since the embedding needs it in any case.

    Raises InputError if this build of torch has no oneDNN (or, with "compiled", this machine no C++ compiler or, for
    bfloat16, no AMX), or if ``model`` is not on the CPU, in float32 or bfloat16, or holds quantised weights.
    """
    check_prepackable(model, layout)
    if layout == "compiled":
        for dtype in {parameter.dtype for parameter in model.parameters()}:
            compile_all(dtype)
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in list(model.modules()):
        if layout == "compiled" and isinstance(module, CanBeCompiled):
            module.compiled = True
        for names in _groups(module):
            linears = [cast("nn.Linear", getattr(module, name)) for name in names]
            if any(id(linear.weight) in embeddings for linear in linears):
                continue
            product = PrepackedWeight(linears, layout)
            for part, name in enumerate(names):
                setattr(module, name, PrepackedLinear(product, part))


def check_prepackable(model: nn.Module, layout: Prepacked = True) -> None:
    """Raise InputError unless ``prepack`` can be used on ``model``."""
    if layout is not True and layout != "compiled":
        raise InputError(f"prepacked={layout!r} is unknown. It is False, True or 'compiled'.")
    if layout is True and not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        raise InputError("prepacked=True needs oneDNN, and this build of torch has none. Leave it out.")
    kinds = {(tensor.device.type, tensor.dtype) for tensor in model.parameters()}
    unfit = sorted(f"{_name(dtype)} on {device}" for device, dtype in kinds if device != "cpu" or dtype not in DTYPES)
    if unfit:
        raise InputError(
            f"prepacked={layout!r} is for float32 and bfloat16 on the CPU; this model's weights are "
            f"{', '.join(unfit)}. Leave it out, or load with device='cpu' and dtype='bfloat16'."
        )
    if getattr(model, "is_quantized", False):
        raise InputError(f"prepacked={layout!r} and quantised weights exclude each other. Leave one of them out.")


def _groups(module: nn.Module) -> Iterator[tuple[str, ...]]:
    """Names of the linear layers right below ``module``, those that meet the same rows together."""
    names = [name for name, child in module.named_children() if type(child) is nn.Linear]
    together = [group for group in getattr(module, "SIDE_BY_SIDE", ()) if set(group) <= set(names)]
    yield from together
    yield from ((name,) for name in names if not any(name in group for group in together))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
