"""Write, check and compare cache policies for diffusion language models.

Names are imported when first used: torch takes seconds, and ``freshkv --help`` needs none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from freshkv.core.version import VERSION

if TYPE_CHECKING:
    from freshkv.core.decoder import Commit, Decoder, Prediction
    from freshkv.core.density import certainty_density
    from freshkv.core.distribution import Distribution
    from freshkv.core.errors import FreshkvError
    from freshkv.core.generate import generate
    from freshkv.core.generate_many import generate_many
    from freshkv.core.network import Network, NetworkSpec
    from freshkv.core.plugins import hookimpl
    from freshkv.core.policy import CachePolicy, LayerView, LayerwisePolicy
    from freshkv.core.ranking import best
    from freshkv.core.registry import decoders, policies
    from freshkv.core.request import Request, RequestResult, RequestStats
    from freshkv.core.run import Run, RunStats
    from freshkv.core.selection import Selection
    from freshkv.core.trace import StepRecord, Trace
    from freshkv.core.view import StepView
    from freshkv.decoders.ranked import RankedDecoder
    from freshkv.models.loading import load
    from freshkv.models.tasks.base import Problem, Task
    from freshkv.models.tokenizer import load_tokenizer

__version__ = VERSION

#: public name -> the module that holds it
_HOMES = {
    "CachePolicy": "core.policy",
    "Commit": "core.decoder",
    "Decoder": "core.decoder",
    "Distribution": "core.distribution",
    "FreshkvError": "core.errors",
    "LayerView": "core.policy",
    "LayerwisePolicy": "core.policy",
    "Network": "core.network",
    "NetworkSpec": "core.network",
    "Prediction": "core.decoder",
    "Problem": "models.tasks.base",
    "RankedDecoder": "decoders.ranked",
    "Request": "core.request",
    "RequestResult": "core.request",
    "RequestStats": "core.request",
    "Run": "core.run",
    "RunStats": "core.run",
    "Selection": "core.selection",
    "StepRecord": "core.trace",
    "StepView": "core.view",
    "Task": "models.tasks.base",
    "Trace": "core.trace",
    "best": "core.ranking",
    "certainty_density": "core.density",
    "generate": "core.generate",
    "generate_many": "core.generate_many",
    "hookimpl": "core.plugins",
    "load": "models.loading",
    "load_tokenizer": "models.tokenizer",
}

#: folders that are reached as attributes; ``policies`` and ``decoders`` can be called, too
_FOLDERS = frozenset({"decoders", "models", "policies", "testing"})

__all__ = [
    "CachePolicy",
    "Commit",
    "Decoder",
    "Distribution",
    "FreshkvError",
    "LayerView",
    "LayerwisePolicy",
    "Network",
    "NetworkSpec",
    "Prediction",
    "Problem",
    "RankedDecoder",
    "Request",
    "RequestResult",
    "RequestStats",
    "Run",
    "RunStats",
    "Selection",
    "StepRecord",
    "StepView",
    "Task",
    "Trace",
    "best",
    "certainty_density",
    "decoders",
    "generate",
    "generate_many",
    "hookimpl",
    "load",
    "load_tokenizer",
    "policies",
]


def __getattr__(name: str) -> Any:
    if name in _FOLDERS:
        return import_module(f"freshkv.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'freshkv' has no attribute '{name}'")
    value = getattr(import_module(f"freshkv.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
