"""The weights of products that freshkv compiles: panels of outputs, each read once, in order."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from attrs import frozen
from torch import Tensor

from freshkv.core.errors import InputError
from freshkv.models.compiled.kernel import kernel_for

#: bfloat16: inner elements of a tile, and outputs of half a panel; its pairs of inner elements lie side by side
DEEP, HALF, PAIR = 32, 16, 2


@frozen(eq=False)
class CompiledLayout:
    """One weight [outputs, inputs], float32 or bfloat16, and its bias, laid out for a compiled product.

    What a row gives does not depend, not even by rounding, on how many other rows are multiplied with it.
    """

    outputs: int
    inputs: int
    _weight: Tensor
    _bias: Tensor | None  # float32 [padded outputs]

    @staticmethod
    def of(weight: Tensor, bias: Tensor | None) -> CompiledLayout:
        """``bias`` is [outputs]. Raises InputError where nothing can be compiled; see ``kernel_for``."""
        kernel = kernel_for(weight.dtype)
        outputs, inputs = weight.shape
        missing = -outputs % kernel.panel_width
        padded = None if bias is None else F.pad(bias.detach().float(), (0, missing))
        panels = torch.unflatten(F.pad(weight.detach(), (0, 0, 0, missing)), 0, (-1, kernel.panel_width))
        return CompiledLayout(outputs, inputs, _laid_out(panels), padded)

    def multiply(self, rows: Tensor) -> Tensor:
        """``rows`` [..., inputs] to [..., outputs].

        Raises InputError for another shape or dtype, where a gradient would be needed, and on a processor of another
        kind than the one that the weight was laid out on.
        """
        if rows.ndim < 2 or rows.shape[-1] != self.inputs or rows.dtype != self.dtype:
            raise InputError(
                f"A compiled product takes rows [n, {self.inputs}] of {self.dtype}, "
                f"not {list(rows.shape)} of {rows.dtype}."
            )
        if rows.requires_grad and torch.is_grad_enabled():
            raise InputError(
                "A compiled product has no gradient. Use torch.no_grad(), or load without prepacked='compiled'."
            )
        if rows.ndim > 2:
            return torch.unflatten(self.multiply(rows.flatten(0, -2)), 0, rows.shape[:-1])
        kernel = kernel_for(self.dtype)
        width = kernel.panel_width
        if self.dtype == torch.float32 and self._weight.shape[2] != width:
            raise InputError(
                f"This weight was laid out {self._weight.shape[2]} outputs wide on another processor; this one needs "
                f"{width}. Load the checkpoint here, or send a model that is not prepacked."
            )
        products = rows.new_empty(rows.shape[0], -(-self.outputs // width) * width)
        if rows.shape[0] > 0:
            kernel.multiply(rows if rows.stride(1) == 1 else rows.contiguous(), self._weight, self._bias, products)
        return products if products.shape[1] == self.outputs else products[:, : self.outputs]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight."""
        return self._weight.dtype

    def weight(self) -> Tensor:
        """The weight in the ordinary layout, [outputs, inputs]; a copy."""
        panels = self._weight
        if self.dtype == torch.bfloat16:
            panels = panels.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)  # [panel, output, padded inner]
        else:
            panels = panels.transpose(1, 2)
        return panels.flatten(0, 1)[: self.outputs, : self.inputs].clone(memory_format=torch.contiguous_format)


def _laid_out(panels: Tensor) -> Tensor:
    """[panel, output, inner] in the order in which the kernel of its dtype reads."""
    if panels.dtype != torch.bfloat16:
        return panels.transpose(1, 2).contiguous()
    deep = F.pad(panels, (0, -panels.shape[2] % DEEP))
    parts = torch.unflatten(torch.unflatten(deep, 2, (-1, DEEP // PAIR, PAIR)), 1, (-1, HALF))
    # [panel, half, output, part of inner, pair, 2] to [panel, part of inner, half, pair, output, 2]
    return parts.permute(0, 3, 1, 4, 2, 5).contiguous()
