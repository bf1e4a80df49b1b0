"""Being connected to Ray: found, reached or started, and left as it was."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from freshkv.core.errors import ClusterError, InputError

#: results are small; Ray would reserve nearly a third of the memory for what workers hand over
OBJECT_STORE_BYTES = 256 * 1024**2
LOCAL: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
#: what workers print belongs into their logs, not into a progress bar
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
REACHABLE_SECONDS = 10.0
STATISTICS = "RAY_USAGE_STATS_ENABLED"


def require_ray() -> Any:
    """The package. Raises InputError if it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise InputError(
            "Running on Ray needs the package ray, which is not installed here: pip install 'freshkv[ray]'. "
            "Every node of a cluster needs it, too."
        ) from error


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Be connected to the Ray at ``address``; None: to one that runs on this machine, or else to a new one.

    A connection that this process has already is used, and stays. Raises InputError if an address is given beside it,
    and ClusterError if there is no Ray at ``address``.
    """
    if ray.is_initialized():
        if address not in (None, "auto"):
            raise InputError(
                f"This process is connected to a Ray already; leave out the address {address}, or call ray.shutdown()."
            )
        yield
        return
    try:
        _connect(ray, address)
        yield
    finally:
        disconnect(ray)


def disconnect(ray: Any) -> None:
    """End a Ray that was started here; leave any other one."""
    ray.shutdown()
    with warnings.catch_warnings():  # Ray drops the processes that it has ended without waiting for them
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _connect(ray: Any, address: str | None) -> None:
    try:
        if address is None:
            _find_or_start(ray)
        elif address == "local":
            start(ray)
        else:
            _check_reachable(address)
            ray.init(address=address, **QUIET)
    except Exception as error:  # Ray raises OSError, RuntimeError, ValueError, ImportError, and Exception itself
        where = "on this machine" if address is None else f"at {address}"
        reason = " ".join(str(error).split())
        raise ClusterError(
            f"Ray cannot be reached or started {where} ({type(error).__name__}: {reason}). See that it runs there "
            "(ray status), in the same versions of Python and Ray as here."
        ) from error


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens at ``address``: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=REACHABLE_SECONDS).close()


def _find_or_start(ray: Any) -> None:
    try:
        ray.init(address="auto", **QUIET)
    except ConnectionError:
        start(ray)


def start(ray: Any, **options: Any) -> None:
    """Start a Ray on this machine: once more if need be, for Ray gives itself 30 seconds, whatever else is running."""
    with _without_statistics():
        try:
            ray.init(address="local", **QUIET, **LOCAL, **options)
        except Exception:
            ray.shutdown()
            ray.init(address="local", **QUIET, **LOCAL, **options)


@contextmanager
def _without_statistics() -> Iterator[None]:
    """Ray asks its environment whether to report its use to its makers: not unless somebody has said so."""
    if STATISTICS in os.environ:
        yield
        return
    os.environ[STATISTICS] = "0"
    try:
        yield
    finally:
        del os.environ[STATISTICS]
