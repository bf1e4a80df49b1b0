"""Policies and decoders with some of their methods replaced: to watch them, widen them, or break them on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import attrs
from torch import Tensor

from freshkv.core.policy import CachePolicy, LayerView, LayerwisePolicy
from freshkv.core.selection import Selection
from freshkv.core.spec import Configurable
from freshkv.core.view import StepView

T = TypeVar("T", bound=Configurable)

#: from a method, bound to the wrapped object, to what is called in its place
Change = Callable[[Callable[..., Any]], Callable[..., Any]]


def wrapped(plugin: T, **changes: Change) -> T:
    """A copy of ``plugin`` in which each named method is replaced by what its change makes of it.

    ``wrapped(policy, select=lambda original: lambda view: original(view))`` behaves as ``policy`` does.
    """
    cls: Any = type(plugin)
    methods = {name: _method(cls, name, change) for name, change in changes.items()}
    subclass = type(cls)(cls.__name__, (cls,), methods)
    values = {field.alias: getattr(plugin, field.name) for field in attrs.fields(cls) if field.init}
    copy: T = subclass(**values)
    return copy


def refreshing_everything(policy: CachePolicy) -> CachePolicy:
    """``policy`` asked as ever, but every row is refreshed and visible, and may predict: the update sets are full."""

    def select(original: Callable[[StepView], Selection]) -> Callable[[StepView], Selection]:
        def widened(view: StepView) -> Selection:
            full = view.everything
            return attrs.evolve(original(view), predict=full, refresh=full, visible=None, priority=None)

        return widened

    def select_layer(original: Callable[[StepView, LayerView], Tensor]) -> Callable[[StepView, LayerView], Tensor]:
        def widened(view: StepView, layer: LayerView) -> Tensor:
            return original(view, layer) | view.everything

        return widened

    if isinstance(policy, LayerwisePolicy):
        return wrapped(policy, select=select, select_layer=select_layer)
    return wrapped(policy, select=select)


def _method(cls: type, name: str, change: Change) -> Callable[..., Any]:
    original = getattr(cls, name)

    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        return change(original.__get__(self))(*arguments, **options)

    return method
