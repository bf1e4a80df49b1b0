"""The pieces that Llama-like networks are made of: norm, rotary embedding, projections, gated feed-forward.

Everything works on packed rows (the leading axis counts rows). Norms and rotary embedding compute in float32
(float64 for a float64 network) whatever the dtype of the weights, and round once at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everybody knows
from torch import Tensor, nn

from freshkv.models.compiled import rowwise_for
from freshkv.models.prepacked import CanBeCompiled, is_compiled, joined, products

WIDTH = -1  # the last axis of every tensor here: elements of a hidden state or of a head


class Layer(Protocol):
    """One transformer layer on packed rows. A family's own class registers the modules under its checkpoint's names."""

    def project(self, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network.project``."""
        ...

    def project_values(self, hidden: Tensor) -> Tensor:
        """See ``Network.project_values``."""
        ...

    def attention_output(self, attended: Tensor) -> Tensor:
        """See ``Network.attention_output``."""
        ...

    def feed_forward(self, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        ...


class RMSNorm(nn.Module, CanBeCompiled):
    """Divide by the root mean square of the last axis, then scale; any shape [..., width], dtype kept."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Norm of ``hidden`` [..., width]."""
        trained = torch.is_grad_enabled() and (hidden.requires_grad or self.weight.requires_grad)
        if self.compiled and hidden.dtype == self.weight.dtype and not trained:
            return rowwise_for(hidden.dtype).norm(hidden, self.weight, self.eps)
        if hidden.device.type != "cpu":
            # the fused kernel accumulates in float32 for half precision and rounds after the scale, not before it
            return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
        # there is none for the CPU, where torch's own function takes more steps over the same memory
        exact = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        scale = exact.square().mean(dim=WIDTH, keepdim=True).add_(self.eps).rsqrt_()
        return (exact * scale).mul_(self.weight).to(hidden.dtype)

    def extra_repr(self) -> str:
        """The width and eps, for ``print(model)``."""
        return f"{self.weight.numel()}, eps={self.eps}"


#: inverse frequencies, float32 [head_width / 2], on a device, and what cosine and sine are multiplied with
Frequencies = Callable[[torch.device], tuple[Tensor, float]]


class Rotary(nn.Module):
    """Cosine and sine of rotary position embedding, the two halves of a head rotated against each other.

    ``head_width`` is that of the rotated part of a head. ``frequencies`` stands in for the powers of ``theta`` where
    positions are scaled.
    """

    def __init__(self, head_width: int, theta: float, frequencies: Frequencies | None = None) -> None:
        super().__init__()
        self.head_width = head_width
        self.theta = theta
        self.scaled = frequencies
        self._factor = 1.0
        # Not a buffer: a cast of the model would round a buffer, and loading would leave it uninitialised.
        self._frequencies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine, each [rows, head_width], of ``positions``, long [rows].

        They are float32, or float64 for a network whose ``dtype`` is float64. The first half of the sine is negative,
        as ``rotate`` adds it to the first half of a head.
        """
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        angles = positions.to(precise)[:, None] * self._inverse_frequencies(positions.device, precise)
        cosine, sine = angles.cos() * self._factor, angles.sin() * self._factor  # [rows, head_width / 2]
        return torch.cat((cosine, cosine), dim=WIDTH), torch.cat((-sine, sine), dim=WIDTH)

    def _inverse_frequencies(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (device, dtype)
        if key not in self._frequencies and self.scaled is not None:
            frequencies, self._factor = self.scaled(device)
            self._frequencies[key] = frequencies.to(dtype)
        elif key not in self._frequencies:
            exponents = torch.arange(0, self.head_width, 2, device=device, dtype=dtype) / self.head_width
            self._frequencies[key] = 1.0 / self.theta**exponents
        return self._frequencies[key]


def rotate(heads: Tensor, rotary: tuple[Tensor, Tensor], *, compiled: bool = False) -> Tensor:
    """Rotary embedding of ``heads`` [rows, heads, head_width], in the dtype of ``rotary``, then cast back.

    Where ``rotary`` is narrower than a head, the rest of the head stays as it is. ``compiled``: by freshkv's own code,
    for heads of float32 or bfloat16 on the CPU.
    """
    width = rotary[0].shape[WIDTH]
    if width < heads.shape[WIDTH]:
        rotated = rotate(heads[..., :width], rotary, compiled=compiled)
        return torch.cat((rotated, heads[..., width:]), dim=WIDTH)
    if compiled:
        return rowwise_for(heads.dtype).rotate(heads, *rotary)
    cosine, sine = (table[:, None] for table in rotary)
    exact = heads.to(cosine.dtype)
    # the halves change places, and the sign of the one that moved to the front is in the table
    rotated = (exact * cosine).addcmul_(exact.roll(width // 2, dims=WIDTH), sine)
    return rotated.to(heads.dtype)


def split_heads(projected: Tensor, head_width: int) -> Tensor:
    """[rows, heads * head_width] to [rows, heads, head_width], a view."""
    return torch.unflatten(projected, WIDTH, (-1, head_width))


def project_heads(
    normed: Tensor,
    projections: tuple[nn.Module, nn.Module, nn.Module],
    head_width: int,
    rotary: tuple[Tensor, Tensor],
    head_norms: tuple[nn.Module, nn.Module] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries, rotated keys and values, each [rows, its heads, head_width], of ``normed`` [rows, width].

    ``head_norms`` are those of each query and key head, before they are rotated.
    """
    to_queries, to_keys, to_values = projections
    both = split_heads(joined(normed, to_queries, to_keys), head_width)  # rotated in one go
    values = split_heads(to_values(normed), head_width)
    kv_heads = values.shape[1]
    if head_norms is not None:
        queries, keys = both[:, :-kv_heads], both[:, -kv_heads:]
        both = torch.cat((head_norms[0](queries), head_norms[1](keys)), dim=1)
    rotated = rotate(both, rotary, compiled=is_compiled(to_queries))
    return rotated[:, :-kv_heads], rotated[:, -kv_heads:], values


def gated(hidden: Tensor, gate: nn.Module, up: nn.Module, down: nn.Module) -> Tensor:
    """SwiGLU: ``down(silu(gate(hidden)) * up(hidden))``, [rows, width] to [rows, width]."""
    if is_compiled(gate, up):
        activated = rowwise_for(hidden.dtype).gate(joined(hidden, gate, up))
    else:
        opened, raised = products(hidden, gate, up)
        activated = F.silu(opened).mul_(raised)
    result: Tensor = down(activated)
    return result


def attention(queries: Tensor, keys: Tensor, values: Tensor, attended_keys: Tensor | None) -> Tensor:
    """Every query attends to every key of its sequence, or to ``attended_keys``.

    ``queries`` [batch, seq, heads, head_width], ``keys`` and ``values`` [batch, seq, kv_heads, head_width],
    ``attended_keys`` bool [batch, seq], [batch, queries, seq] where queries differ, or None (all). Returns
    [batch, seq, heads, head_width].
    """
    shared_by = queries.shape[2] // keys.shape[2]
    if shared_by > 1:  # repeated here, because fewer kernels take grouped heads than take equal ones
        keys, values = (heads.repeat_interleave(shared_by, dim=2) for heads in (keys, values))
    mask = attended_keys
    if mask is not None:
        mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    queries, keys, values = (heads.transpose(1, 2) for heads in (queries, keys, values))
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2)
