"""Random networks of stated shapes, and prompts. Speed does not depend on what the weights hold."""

from __future__ import annotations

from typing import Literal

import psutil
import torch
from attrs import frozen
from torch import Tensor

from freshkv.models import LLaDAConfig, LLaDAModelLM
from freshkv.models.prepacked import Prepacked, prepack

GIB = 2**30
#: of the memory that is free, what a network and its caches may take; the rest is for activations and everybody else
USABLE = 0.9
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TooLargeError(RuntimeError):
    """A network that does not fit into the memory of this machine."""


@frozen(kw_only=True)
class Shape:
    """A LLaDA network. ``feed_forward`` is the inner width of its gated feed-forward network."""

    name: str
    width: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Elements of all matrices, the embedding and the output head."""
        layer = 4 * self.width**2 + 3 * self.width * self.feed_forward
        return self.layers * layer + 2 * self.vocabulary * self.width

    def config(self) -> LLaDAConfig:
        """The configuration, with the last token as mask and the one before as end of text."""
        return LLaDAConfig(
            d_model=self.width,
            n_layers=self.layers,
            n_heads=self.heads,
            n_kv_heads=self.heads,
            mlp_hidden_size=self.feed_forward,
            vocab_size=self.vocabulary,
            mask_token_id=self.vocabulary - 1,
            eos_token_id=self.vocabulary - 2,
        )


SMALL = Shape(name="small", width=512, layers=8, heads=8, feed_forward=1536, vocabulary=32_000)
LLADA_8B = Shape(name="llada-8b", width=4096, layers=32, heads=32, feed_forward=12_288, vocabulary=126_464)
SHAPES = {shape.name: shape for shape in (SMALL, LLADA_8B)}


def require_memory(shape: Shape, dtype: str, positions: int, available: int | None = None) -> None:
    """Raise TooLargeError unless weights and the caches of ``positions`` (batch x seq) fit into free memory.

    ``available``, bytes, is what the machine has free; None: ask it.
    """
    available = psutil.virtual_memory().available if available is None else available
    element = DTYPES[dtype].itemsize
    weights = element * shape.parameters
    # keys and values, and what each layer added, which the carried path keeps
    caches = element * 3 * shape.layers * shape.width * positions
    if weights + caches > USABLE * available:
        raise TooLargeError(
            f"{shape.name} in {dtype} needs {weights / GIB:.1f} GiB for its weights and {caches / GIB:.1f} GiB for "
            f"caches of {positions} positions; {available / GIB:.1f} GiB are free here, of which {USABLE:.0%} may be "
            "used. Take bfloat16, a smaller batch, or a machine with more memory."
        )


def make_network(
    shape: Shape, dtype: str, seed: int = 0, *, device: str = "cpu", prepacked: Prepacked | Literal[False] = False
) -> LLaDAModelLM:
    """The network, made on ``device``, ready to decode; its weights depend on ``seed`` and the device's generator.

    ``prepacked`` lays its weights out as ``freshkv.load`` does.
    """
    with torch.device("meta"):
        network = LLaDAModelLM(shape.config())
    network = network.to(DTYPES[dtype]).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.data.fill_(1.0)
        else:  # every matrix keeps the size of what it multiplies, so that rows and positions matter
            _fill(parameter.data, 1.0 if "wte" in name else parameter.shape[1] ** -0.5, generator)
    network.eval().requires_grad_(False)
    if prepacked:
        prepack(network, prepacked)
    return network


def _fill(weight: Tensor, scale: float, generator: torch.Generator, unique: int = (1 << 22) - 3) -> None:
    """Normal numbers, repeated after ``unique`` elements: drawing eight thousand million takes minutes.

    ``unique`` is no multiple of a width, so that no two rows are equal.
    """
    flat = weight.view(-1)
    drawn = torch.randn(min(unique, flat.numel()), generator=generator, device=flat.device).mul_(scale).to(weight.dtype)
    for start in range(0, flat.numel(), drawn.numel()):
        part = flat[start : start + drawn.numel()]
        part.copy_(drawn[: part.numel()])


def make_prompt(shape: Shape, length: int, batch: int = 1, seed: int = 0) -> Tensor:
    """long [batch, length], without the mask token and the end of text."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, shape.vocabulary - 2, (batch, length), generator=generator)
