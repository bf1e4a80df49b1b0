"""What a check is, and how it says that it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from freshkv.testing.conformance.subject import Subject

#: draws a value from a hypothesis strategy
Draw = Callable[[Any], Any]


class NotAsPromisedError(AssertionError):
    """A policy or decoder broke the contract. ``seen_with`` says in which run."""

    def __init__(self, found: str, seen_with: str = "") -> None:
        super().__init__(found)
        self.found = found
        self.seen_with = seen_with


class LeftOutError(Exception):
    """There is nothing to check, and why."""


@frozen(kw_only=True, eq=False)
class Check:
    """One invariant. ``body`` draws a case and raises NotAsPromisedError if it does not hold."""

    name: str  #: a sentence, with underscores
    why: str  #: it matters
    mend: str  #: what the author should change
    body: Callable[[Subject, Draw], None]
    #: more basic checks: where one of these fails, this one is not the news
    after: tuple[str, ...] = ()
    share: float = 1.0  #: of the examples; below 1 for checks with many runs each

    @property
    def sentence(self) -> str:
        """The name, readable."""
        return self.name.replace("_", " ")

    def explain(self, error: NotAsPromisedError) -> str:
        """What was found, why it matters, what to change."""
        lines = [error.found, f"Why it matters: {self.why}", f"What to change: {self.mend}"]
        if error.seen_with:
            lines.append(f"Seen with: {error.seen_with}")
        return "\n".join(lines)


class Checks(Mapping[str, Check]):
    """Checks by name, in the order in which they are defined: the basic ones first."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def add(
        self, *, why: str, mend: str, after: tuple[str, ...] | None = None, share: float = 1.0
    ) -> Callable[[Callable[[Subject, Draw], None]], Callable[[Subject, Draw], None]]:
        """A decorator that makes a check of a function. ``after`` None: it comes after all that were added before."""

        def register(body: Callable[[Subject, Draw], None]) -> Callable[[Subject, Draw], None]:
            name = body.__name__
            before = tuple(self._checks) if after is None else after
            self._checks[name] = Check(name=name, why=why, mend=mend, body=body, after=before, share=share)
            return body

        return register

    def __getitem__(self, name: str) -> Check:
        return self._checks[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)
