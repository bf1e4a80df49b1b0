"""What the host hands to a device, without waiting until the device has done what it was told before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor``, on the host, on ``device``: itself if that is the host.

    A copy that blocks would wait for the whole queue of the device. One that does not is safe from the host: what is
    not pinned is read before the call returns.
    """
    return tensor.to(device, non_blocking=device.type != "mps")  # there, memory that is freed early was read late


def numbers(values: Sequence[int], device: torch.device) -> Tensor:
    """long [n] on ``device``."""
    return uploaded(torch.tensor(values, dtype=torch.long), device)
