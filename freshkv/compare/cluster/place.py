"""Where the work of an experiment is done: in this process, or by workers on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from attrs import field, frozen

from freshkv.compare.cluster.connection import connected, require_ray
from freshkv.compare.cluster.crew import Crew
from freshkv.core.errors import InputError

HERE: Literal["here"] = "here"
RAY: Literal["ray"] = "ray"
PLACES = (HERE, RAY)


def _workers(value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"workers is {value!r}; expected a whole number of at least 1.")
    return value


@frozen(kw_only=True)
class OnRay:
    """Workers on Ray, local or on a cluster.

    A Ray that is there is used and left as it was: the one that this process is connected to, the one at ``address``,
    or one that runs on this machine. Where there is none, one is started for the time being, without dashboard and
    usage statistics. Raises InputError.
    """

    #: as ``ray.init`` takes it: ``auto``, ``host:port``, ``ray://host:port``; ``local`` starts one;
    #: None: one that runs on this machine, else a new one
    address: str | None = None
    workers: int | None = field(default=None, converter=_workers)  #: at most; None: as many as there is room for

    @property
    def doing(self) -> str:
        """What ``open`` begins with, for people."""
        return "looking for Ray" if self.address is None else f"connecting to Ray at {self.address}"

    @contextmanager
    def open(self) -> Iterator[Crew]:
        """Workers for several experiments, which then need not load a model again: ``run_experiment(..., on=crew)``.

        Raises InputError if Ray is not installed, and ClusterError if it cannot be reached.
        """
        from freshkv.compare.cluster.worker import Worker

        ray = require_ray()
        with connected(ray, self.address):
            crew = Crew(ray, Worker, self.workers)
            try:
                yield crew
            finally:
                crew.dismiss_all()


Place = Literal["here", "ray"] | OnRay | Crew


@contextmanager
def workplace(on: Place, hear: Callable[[str], None]) -> Iterator[Literal["here"] | Crew]:
    """``HERE``, or a crew: opened, and closed in the end, unless ``on`` is one. ``hear`` is told what takes long.

    Raises InputError for anything else, and what ``OnRay.open`` raises.
    """
    if on == HERE:
        yield HERE
    elif isinstance(on, Crew):
        yield on
    else:
        chosen = OnRay() if on == RAY else on
        if not isinstance(chosen, OnRay):
            raise InputError(f"on is {on!r}; expected {', '.join(PLACES)} or an OnRay.")
        hear(chosen.doing)
        with chosen.open() as crew:
            yield crew
