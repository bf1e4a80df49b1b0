"""Memory of a device: the peak of a stretch of work, and what is free. On the CPU, of the process and of the system."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

#: where Linux keeps what a container may use
_CGROUPS = Path("/sys/fs/cgroup")
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


def free_bytes(device: torch.device, cgroups: Path = _CGROUPS) -> int:
    """What may still be allocated.

    CUDA: what the device has free, and what torch holds of it without using it. Otherwise: what the system can give to
    a process without swapping, within the limits of a container.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min((int(psutil.virtual_memory().available), *container_free(cgroups)))


def container_free(cgroups: Path) -> list[int]:
    """Bytes below the limit of a control group, of version 2 or 1; empty where there is none.

    Files that are held in memory only until it is needed count as free.
    """
    version_1 = cgroups / "memory"
    places = (
        (cgroups / "memory.max", cgroups / "memory.current", cgroups / "memory.stat", "inactive_file"),
        (
            version_1 / "memory.limit_in_bytes",
            version_1 / "memory.usage_in_bytes",
            version_1 / "memory.stat",
            "total_inactive_file",
        ),
    )
    found = []
    for limit, used, statistics, files in places:
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            lines = dict(line.split() for line in statistics.read_text().splitlines())
            found.append(max(0, int(limit.read_text()) - int(used.read_text()) + int(lines.get(files, 0))))
    return found
