"""What freshkv uses of Ray, in one process, with workers that die when chance says so."""

from __future__ import annotations

from types import SimpleNamespace

from freshkv.compare.cluster.errand import Answer, Readiness


class RayError(Exception):
    """The base of Ray's errors."""


class RayTaskError(RayError):
    """An error that was raised by a method of a worker."""


class ActorUnavailableError(RayError):
    """A worker that died."""


class DeathError(Exception):
    """Ends the worker that raises it, for good."""


class Ref:
    """A call: its result, or what it ended with."""

    def __init__(self, actor, method, arguments):
        self.actor, self.method, self.arguments = actor, method, arguments
        self.result = self.error = None


class Actor:
    """A handle: calls wait in line."""

    def __init__(self, make):
        self.make, self.instance = make, make()
        self.line = []
        self.is_killed = self.is_stuck = False

    def __getattr__(self, name):
        return Method(self, name)


class Method:
    def __init__(self, actor, name):
        self._actor, self._name = actor, name

    def options(self, **options):
        return self

    def remote(self, *arguments):
        assert not self._actor.is_killed
        assert not self._actor.is_stuck
        ref = Ref(self._actor, self._name, arguments)
        self._actor.line.append(ref)
        return ref


class FakeRay:
    """``randomness`` decides whose call ends next, and which workers die; ``is_deadly`` of what they always die."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, randomness, death_rate=0.0, is_deadly=lambda errand: False, places=4):
        self._randomness, self._rate, self._is_deadly = randomness, death_rate, is_deadly
        self._places = places
        self.actors = []
        self.deaths = []  #: errands of which workers died, each time

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": self._places}}, {"Alive": False, "Resources": {"CPU": 64}}]

    def remote(self, worker):
        def hire():
            self.actors.append(Actor(worker))
            return self.actors[-1]

        made = SimpleNamespace(remote=hire)
        return SimpleNamespace(options=lambda **options: made)

    def wait(self, refs, timeout):
        fronts = [ref for ref in refs if ref.actor.line[0] is ref]
        assert fronts, "every worker waits for another one"
        if self._randomness.random() < 0.1:
            return [], refs
        ref = self._randomness.choice(fronts)
        self._run(ref)
        return [ref], [other for other in refs if other is not ref]

    def _run(self, ref):
        actor = ref.actor
        actor.line.remove(ref)
        if self._randomness.random() < self._rate / 4:  # it died while it had nothing to do
            actor.instance = actor.make()
        errand = ref.arguments[0] if ref.method == "decode" else None
        if errand is not None and (self._is_deadly(errand) or self._randomness.random() < self._rate):
            self.deaths.append(errand)
            actor.instance = actor.make()
            ref.error = ActorUnavailableError("it died")
            return
        try:
            ref.result = getattr(actor.instance, ref.method)(*ref.arguments)
        except DeathError:
            ref.error = ActorUnavailableError("it died")

    def get(self, ref):
        if ref.error is not None:
            raise ref.error
        return ref.result

    def kill(self, actor):
        actor.is_killed = True

    def cancel(self, ref):
        """In Ray 2.60, a worker never gets to calls behind one that was cancelled while it waited."""
        ref.actor.is_stuck = True


class FakeWorker:
    """Answers with what it was asked."""

    def __init__(self):
        self._is_ready = False

    def ready(self, job, expected):
        self._is_ready = True
        return Answer(value=Readiness(host="node", pid=1, header=expected, cases=None))

    def decode(self, number):
        return Answer(value=number) if self._is_ready else None
