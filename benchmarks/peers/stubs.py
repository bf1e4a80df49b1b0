"""Stands in for packages that a published implementation imports and that decoding does not use."""

from __future__ import annotations

import sys
from types import ModuleType
from unittest.mock import MagicMock


class _Anything(type):
    """A class whose missing attributes can be called and ignored."""

    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


class Stub(ModuleType):
    """A module in which every name is something that can be called, subclassed and ignored."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        found: object = _Anything(name, (), {}) if name[:1].isupper() else MagicMock(name=name)
        setattr(self, name, found)
        return found


def stub(*names: str) -> None:
    """Put a stub in the place of each module, whether it is installed or not: decoding must not depend on it."""
    for name in names:
        sys.modules[name] = Stub(name)
