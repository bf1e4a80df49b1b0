"""The conformance kit for pytest: subclass, set one attribute, and every invariant is a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from freshkv.core.errors import InputError, did_you_mean
from freshkv.testing.conformance.checks import Check, Checks
from freshkv.testing.conformance.decoder_checks import DECODER_CHECKS
from freshkv.testing.conformance.kit import EXAMPLES, Kit
from freshkv.testing.conformance.policy_checks import POLICY_CHECKS
from freshkv.testing.conformance.subject import Subject


class _Contract:
    """What both contracts share."""

    #: check name to reason: these checks must fail, and are reported as expected failures
    expected_failures: ClassVar[dict[str, str]] = {}
    #: runs that each check looks at; more find rarer faults
    examples: ClassVar[int] = EXAMPLES

    _kind: ClassVar[str]
    _checks: ClassVar[Checks]
    _kit: ClassVar[Kit | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls._kit = None
        for name, reason in cls.expected_failures.items():
            if name.removeprefix("test_") not in cls._checks:
                hint = did_you_mean(name, cls._checks)
                raise InputError(f"{cls.__name__}.expected_failures names '{name}', which is no check.{hint}")
            if not isinstance(reason, str) or not reason.strip():
                raise InputError(f"{cls.__name__}.expected_failures gives no reason for '{name}'.")

    def _examine(self, check: Check) -> None:
        __tracebackhide__ = True
        outcome = self._kit_of_class().outcome(check.name)
        expected = {name.removeprefix("test_"): reason for name, reason in self.expected_failures.items()}
        reason = expected.get(check.name)
        if outcome.status == "left out":
            pytest.skip(outcome.message)
        if reason is not None:
            if outcome.status == "passed":
                pytest.fail(
                    f"'{check.name}' no longer fails; remove it from {type(self).__name__}.expected_failures.",
                    pytrace=False,
                )
            pytest.xfail(reason)
        if outcome.status == "blocked":
            pytest.skip(outcome.message)
        if outcome.status == "failed":
            pytest.fail(outcome.message, pytrace=False)

    @classmethod
    def _kit_of_class(cls) -> Kit:
        if cls._kit is None:
            given = getattr(cls, cls._kind, None)
            if given is None:
                raise InputError(f'{cls.__name__} does not say what to check: set {cls._kind} = "name".')
            subject = Subject.of(given, cls._kind, getattr(cls, "exact", None))
            cls._kit = Kit(subject, cls._checks, cls.examples)
        return cls._kit


class PolicyContract(_Contract):
    """Every invariant of cache policies as a test. Subclass it in a test module and set ``policy``.

    ``policy`` is a name or a class (checked with its default options and any others), or a spec string with options or
    an object (checked as it is).
    """

    policy: ClassVar[Any] = None
    exact: ClassVar[Any] = None  #: a spec string, or an object, that is said to give the uncached run

    _kind = "policy"
    _checks = POLICY_CHECKS


class DecoderContract(_Contract):
    """Every invariant of decoders as a test. Subclass it in a test module and set ``decoder``.

    ``decoder`` is a name or a class (checked with its default options and any others), or a spec string with options or
    an object (checked as it is).
    """

    decoder: ClassVar[Any] = None

    _kind = "decoder"
    _checks = DECODER_CHECKS


def _test_of(check: Check) -> Callable[[_Contract], None]:
    def test(self: _Contract) -> None:
        __tracebackhide__ = True
        self._examine(check)

    test.__name__ = test.__qualname__ = f"test_{check.name}"
    test.__doc__ = f"{check.sentence[0].upper()}{check.sentence[1:]}: {check.why}"
    return test


for _contract in (PolicyContract, DecoderContract):
    for _check in _contract._checks.values():
        setattr(_contract, f"test_{_check.name}", _test_of(_check))
