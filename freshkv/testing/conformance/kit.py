"""Runs checks with hypothesis, and says what came of them."""

from __future__ import annotations

import time
from typing import Literal

from attrs import field, frozen
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st

from freshkv.testing.conformance.checks import Check, Checks, Draw, LeftOutError, NotAsPromisedError
from freshkv.testing.conformance.subject import Subject

Status = Literal["passed", "failed", "blocked", "left out"]
EXAMPLES = 10
SHRINKING_SECONDS = 4.0  #: spent on looking for a smaller run that shows the same


@frozen
class Outcome:
    """What came of a check."""

    check: Check
    status: Status
    message: str = ""  #: the explanation of a failure; why it is blocked or left out


@frozen(eq=False)
class Kit:
    """All checks of a policy or decoder. Outcomes are kept: asking twice costs nothing."""

    subject: Subject
    checks: Checks
    examples: int = EXAMPLES
    shrink: bool = True  #: look for the smallest run that shows a failure
    _outcomes: dict[str, Outcome] = field(factory=dict, init=False)

    def outcome(self, name: str) -> Outcome:
        """Run a check. One that fails because a more basic one does is blocked."""
        if name not in self._outcomes:
            self._outcomes[name] = self._run(self.checks[name])
        return self._outcomes[name]

    def _run(self, check: Check) -> Outcome:
        try:
            error = self._search(check)
        except LeftOutError as reason:
            return Outcome(check, "left out", str(reason))
        if error is None:
            return Outcome(check, "passed")
        for basic in check.after:
            if self.outcome(basic).status == "failed":
                return Outcome(check, "blocked", f"not checked, because another fails: {self.checks[basic].sentence}")
        return Outcome(check, "failed", check.explain(error))

    def _search(self, check: Check) -> NotAsPromisedError | None:
        found: list[NotAsPromisedError] = []
        until: list[float] = []
        phases = (Phase.generate, Phase.shrink) if self.shrink else (Phase.generate,)

        @settings(
            max_examples=max(1, round(self.examples * check.share)),
            phases=phases,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @given(data=st.data())
        def examine(data: st.DataObject) -> None:
            draw: Draw = data.draw
            # passing from now on ends the search
            if until and time.monotonic() > until[0]:
                return
            try:
                check.body(self.subject, draw)
            except NotAsPromisedError as error:
                found.append(error)
                until.append(time.monotonic() + SHRINKING_SECONDS)
                raise

        try:
            examine()
        except Exception:
            # what keeps state fails in other ways each time, which hypothesis reports in its own words
            if not found:
                raise
            return found[-1]
        return None
