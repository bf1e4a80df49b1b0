"""Networks that fail: for lack of memory, or with logits that are no numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from freshkv.core.network import Network
from freshkv.testing.watched import WatchedNetwork


class SmallMemory(WatchedNetwork):
    """``fail`` raises where more than ``most`` rows go through the feed-forward network at a time."""

    def __init__(self, network: Network, most: int, fail: Callable[[], None]) -> None:
        super().__init__(network)
        self.most, self.fail, self.passes = most, fail, 0

    def feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
        if hidden.shape[0] > self.most:
            self.fail()
        return super().feed_forward(layer, hidden)


def cuda_has_no_memory() -> None:
    """What torch raises for a GPU."""
    raise torch.cuda.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.20 GiB is "
        "free."
    )


def cpu_has_no_memory() -> None:
    """Ask for more than any machine has: torch's own error."""
    torch.empty(2**55)


class BrokenByToken(WatchedNetwork):
    """Everything of a sequence whose prompt holds ``token`` is NaN. The network never proposes that token."""

    def __init__(self, network: Network, token: int) -> None:
        super().__init__(network)
        self.token = token

    def embed_rows(self, tokens: Tensor) -> Tensor:
        hidden = super().embed_rows(tokens)
        return hidden.masked_fill((tokens == self.token)[:, None], torch.nan)

    def logits(self, hidden: Tensor) -> Tensor:
        logits = super().logits(hidden)
        logits[:, self.token] = logits[:, self.token].clamp(max=-1e9)
        return logits
