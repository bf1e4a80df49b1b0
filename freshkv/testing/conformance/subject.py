"""What is checked: a policy or decoder, or a class of them with any options."""

from __future__ import annotations

import inspect
from typing import Any

import attrs
from attrs import frozen
from hypothesis import strategies as st

from freshkv.core.decoder import Decoder
from freshkv.core.errors import InputError, SpecError
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import decoders, policies, resolve_decoder, resolve_policy
from freshkv.core.spec import parse_spec
from freshkv.testing.specs import configured

#: kind to (base class, all that are known, from text or object to object)
_KINDS: dict[str, tuple[type[Any], Any, Any]] = {
    "policy": (CachePolicy, policies, resolve_policy),
    "decoder": (Decoder, decoders, resolve_decoder),
}


@frozen(eq=False)
class Subject:
    """A policy or decoder under test.

    A bare name or a class is checked with its default options and with any others; a spec string with options, or an
    object, exactly as it is.
    """

    kind: str  #: "policy" or "decoder"
    cls: type[Any]
    example: Any  #: as given, or with default options
    fixed: bool  #: whether other options are left alone
    exact: Any = None  #: an object that gives the uncached run, where the author says so

    @classmethod
    def of(cls, given: Any, kind: str, exact: Any = None) -> Subject:
        """From what an author names. Raises InputError, UnknownNameError or SpecError."""
        base, known, resolve = _KINDS[kind]
        if inspect.isclass(given):
            if not issubclass(given, base):
                raise InputError(f"{given.__name__} is not a subclass of freshkv.{base.__name__}.")
            example, fixed = _with_defaults(given, kind), False
        elif isinstance(given, str):
            name, colon, _ = given.strip().partition(":")
            if not colon and name in known():
                example, fixed = _with_defaults(known()[name], kind), False
            else:
                example, fixed = resolve(given), True
        else:
            example, fixed = resolve(given), True
        named = cls(kind, type(example), example, fixed)
        return named if exact is None else attrs.evolve(named, exact=named.build(exact))

    @property
    def name(self) -> str:
        """The class, as messages say it."""
        return self.cls.__name__

    def build(self, spec: Any) -> Any:
        """An object of this class, which need not be registered, from a spec string; an object stays what it is."""
        if not isinstance(spec, str):
            return spec
        return parse_spec(spec, self.kind, {self.cls.name: self.cls})

    def any(self) -> st.SearchStrategy[Any]:
        """Objects to check."""
        return st.just(self.example) if self.fixed else st.just(self.example) | configured(self.cls)


def _with_defaults(cls: type[Any], kind: str) -> Any:
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
        raise InputError(f"{cls.__name__} cannot be checked: it has no method {missing}.")
    try:
        return cls()
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"{cls.__name__} cannot be built with default options ({error}). Give each option a default, or name the "
            f'options to check: {kind} = "{getattr(cls, "name", "name")}:option=value".'
        ) from error
