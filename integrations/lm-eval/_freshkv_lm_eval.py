"""How ``lm_eval --model freshkv`` finds freshkv.

From the release after 0.4.13 on, lm-eval reads the entry points of the group ``lm_eval.models``, and freshkv has one.
Until then it only knows its own list. This module fills the gap: it is a package of its own, freshkv-lm-eval, and
``freshkv_lm_eval.pth`` calls ``watch`` whenever Python starts. So it must stay tiny, import nothing but ``sys``, and do
nothing until somebody imports ``lm_eval.models``.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

NAME = "freshkv"
TARGET = "freshkv.evaluation.harness:FreshkvLM"
MODELS = "lm_eval.models"


def watch() -> None:
    """Register freshkv as soon as lm-eval's list of models is there."""
    if MODELS in sys.modules:
        register()
    elif not any(type(finder).__name__ == Watcher.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Watcher())


def register() -> None:
    """Tell lm-eval where the class is; it is imported when somebody asks for it."""
    try:
        from lm_eval.api.registry import model_registry
    except ImportError:  # a release that freshkv does not support; its own models must still work
        return
    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)


class Watcher:
    """A finder of modules that finds what others find, and notices one name."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The specification of ``lm_eval.models``, with ``register`` at its end; None for any other module."""
        if name != MODELS:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            _then_register(spec.loader)
        return spec


def _then_register(loader: Any) -> None:
    execute = loader.exec_module

    def execute_and_register(module: Any) -> None:
        execute(module)
        register()

    loader.exec_module = execute_and_register
