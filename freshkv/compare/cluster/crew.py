"""The workers of an experiment, or of one experiment after the other."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from freshkv.compare.cluster.errand import Answer, Job, Readiness
from freshkv.compare.records import Header
from freshkv.core.errors import ClusterError, FreshkvError
from freshkv.core.version import VERSION

RETRIES = 3  #: of whatever a worker died of
TICK = 1.0  #: seconds between words to whoever waits


class DiedError(Exception):
    """A worker ended while it was asked for something."""


@define(eq=False)
class Member:
    """One worker, as an actor of Ray."""

    actor: Any
    host: str = ""  #: where it was ready last
    pid: int | None = None  #: likewise
    waking: list[Any] = field(factory=list)  #: calls to be ready, until one is answered


class Crew:
    """Workers on Ray. Made by ``OnRay.open``, and closed by it."""

    def __init__(self, ray: Any, worker: type, most: int | None) -> None:
        self.ray = ray
        self._most = most
        self._class = ray.remote(worker)
        self._members: list[Member] = []
        self._needs = (0, 0)
        self._told: set[tuple[str, type[Warning]]] = set()

    @property
    def members(self) -> tuple[Member, ...]:
        """Those that were hired and not dismissed; some may wait for a place or be starting again."""
        return tuple(self._members)

    def describe(self, job: Job, on_tick: Callable[[], None]) -> Readiness:
        """Have one worker load the model. Raises ClusterError if there is no room for it, or none can."""
        (member,) = self.hire(job, 1)
        readiness: Readiness = self._begin(member, self.make_ready(member, job, None), on_tick)
        member.waking.clear()
        return readiness

    def find(self, models: Sequence[str], job: Job, on_tick: Callable[[], None]) -> None:
        """Have one worker look for ``models``. Raises what ``locate`` raises."""
        (member,) = self.hire(job, 1)
        self._begin(member, member.actor.find.remote(tuple(models)), on_tick)

    def hire(self, job: Job, count: int) -> tuple[Member, ...]:
        """As many members as are wanted and there is room for; those that need something else are dismissed.

        Raises ClusterError if there is no room for any.
        """
        if self._needs != (job.cpus, job.gpus):
            self.dismiss_all()
            self._needs = (job.cpus, job.gpus)
        most = _room(self.ray.nodes(), job) if self._most is None else self._most
        if most == 0:
            raise ClusterError(
                f"There is no room for a worker, which needs {describe_needs(job)}: {_largest(self.ray.nodes())}. "
                "Ask for fewer --threads, or say --workers if the cluster grows on demand."
            )
        actor = self._class.options(
            num_cpus=job.cpus,
            num_gpus=job.gpus,
            max_restarts=-1,
            # of calls to get ready; above 0, so that calls wait for a worker that is being started again
            max_task_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )
        while len(self._members) < min(most, count):
            self._members.append(Member(actor.remote()))
        self._members.sort(key=lambda member: len(member.waking))  # first those that were ready before
        return tuple(self._members[:count])

    def make_ready(self, member: Member, job: Job, expected: Header | None) -> Any:
        """Ask a worker to be ready; Ray starts it again where it dies of that."""
        member.waking.append(member.actor.ready.remote(job, expected))
        return member.waking[-1]

    def dismiss(self, members: Iterable[Member]) -> None:
        """End workers, whatever they are doing."""
        for member in tuple(members):
            self._members.remove(member)
            for call in member.waking:  # or Ray would want to try that again, and complain that it cannot
                self.ray.cancel(call)
            self.ray.kill(member.actor)

    def dismiss_all(self) -> None:
        """End all workers."""
        self.dismiss(self._members)

    def receive(self, call: Any) -> Answer | None:
        """What a call has given. Raises DiedError if its worker ended, and FreshkvError for all other errors."""
        try:
            answer: Answer | None = self.ray.get(call)
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, FreshkvError):
                raise error.cause from error
            raise ClusterError(f"A worker failed:\n{error}") from error
        except self.ray.exceptions.RayError as error:
            raise DiedError(_last_line(error)) from error
        for told in () if answer is None else answer.warnings:
            if told not in self._told:  # once, not once for each worker
                self._told.add(told)
                warnings.warn(*told, stacklevel=2)
        return answer

    def _begin(self, member: Member, call: Any, on_tick: Callable[[], None]) -> Any:
        """Wait for the first call of a worker."""
        try:
            while not self.ray.wait([call], timeout=TICK)[0]:
                on_tick()
            answer = self.receive(call)
        except FreshkvError:  # it has answered, and can be asked again
            raise
        except BaseException as error:
            self.dismiss([member])
            if isinstance(error, DiedError):
                raise cannot_start(str(error)) from error
            raise
        return None if answer is None else answer.value


def cannot_start(reason: str) -> ClusterError:
    """The error for workers that die before they are ready."""
    return ClusterError(
        f"No worker gets ready; the last one ended with {reason} Each needs freshkv {VERSION} where it runs, and "
        "memory for the model. Ray's logs on its node say more."
    )


def describe_needs(job: Job) -> str:
    """``2 CPUs and 1 GPU``."""
    cpus = f"{job.cpus} CPU{'s' * (job.cpus != 1)}"
    return f"{cpus} and {job.gpus} GPU" if job.gpus else cpus


def _room(nodes: Sequence[Mapping[str, Any]], job: Job) -> int:
    """How many workers fit, were nobody else there."""
    needs = {"CPU": job.cpus, "GPU": job.gpus}
    return sum(
        min(int(resources.get(kind, 0) // amount) for kind, amount in needs.items() if amount)
        for resources in _resources(nodes)
    )


def _largest(nodes: Sequence[Mapping[str, Any]]) -> str:
    most = {kind: max((int(r.get(kind, 0)) for r in _resources(nodes)), default=0) for kind in ("CPU", "GPU")}
    return f"a node has at most {most['CPU']} CPUs and {most['GPU']} GPUs"


def _resources(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in nodes if node["Alive"]]


def _last_line(error: Exception) -> str:
    """Where Ray explains at length, the reason stands last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"
