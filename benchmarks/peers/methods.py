"""What is compared: the methods, which steps of a run do the same work, and the settings that all share."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen(kw_only=True)
class Setting:
    """One run. Lengths in positions; one token is decoded a step."""

    prompt: int = 512
    response: int = 128
    block: int = 32
    dtype: str = "float32"
    threads: int = 2
    kp: int = 50  #: steps; of dllm
    kr: int = 7  #: steps; of dllm

    @property
    def steps(self) -> int:
        """Forward passes of a run."""
        return self.response


def _always(setting: Setting, step: int) -> str:
    return "every step"


def _opening(setting: Setting, step: int) -> str:
    return "block opens" if step % setting.block == 0 else "within block"


def _by_block(setting: Setting, step: int) -> str:
    return "block opens" if step % setting.block == 0 else f"within block {step // setting.block}"


def _dllm(setting: Setting, step: int) -> str:
    if step % setting.kp == 0:
        return "prompt"
    return "response" if step % setting.kr == 0 else "some rows"


def _first(setting: Setting, step: int) -> str:
    return "first" if step == 0 else "later"


@frozen(kw_only=True)
class Method:
    """A cache policy as it is compared."""

    name: str
    policy: str  #: ours; {kp} and {kr} are filled in
    kind: Callable[[Setting, int], str]  #: steps of the same kind do about the same work
    target: float  #: at least so many times faster than the fastest published implementation

    def spec(self, setting: Setting) -> str:
        """Our policy's spec string."""
        return self.policy.format(kp=setting.kp, kr=setting.kr)

    def kinds(self, setting: Setting) -> list[str]:
        """The kind of each step of a run."""
        return [self.kind(setting, step) for step in range(setting.steps)]

    def enough(self, setting: Setting, least: int) -> int:
        """So many steps from the start hold every kind at least ``least`` times, or as often as a run does.

        Besides the first step, which warms up.
        """
        kinds = self.kinds(setting)
        for most in range(1, len(kinds)):
            if all(kinds[1:most].count(kind) >= min(least, kinds[1:].count(kind)) for kind in set(kinds)):
                return most
        return len(kinds)


METHODS = {
    method.name: method
    for method in (
        Method(name="none", policy="none", kind=_always, target=1.4),
        Method(name="prefix", policy="prefix", kind=_by_block, target=1.6),
        Method(name="dual", policy="dual", kind=_opening, target=2.0),
        Method(name="dllm", policy="dllm:kp={kp},kr={kr}", kind=_dllm, target=3.0),
        Method(name="d2cache", policy="d2cache", kind=_first, target=3.0),
    )
}
