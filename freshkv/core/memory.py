"""Peak memory of a stretch of work: the device's allocator, or the process where the device is the CPU."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Starts counting when made; ``bytes`` is the most that was held since.

    CUDA: bytes allocated by torch. CPU: resident set of the process; where the system cannot reset its high-water mark
    (only Linux can), the resident set when asked.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                _CLEAR.write_text("5")  # resets the resident set's high-water mark

    @property
    def bytes(self) -> int:
        """Peak since construction."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        with suppress(OSError, StopIteration, ValueError):
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            return int(line.split()[1]) * 1024
        return int(psutil.Process().memory_info().rss)
