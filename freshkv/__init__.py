"""Write, check and compare cache policies for diffusion language models."""

# The folders first: as attributes of the package, the functions of the same names take their place.
import freshkv.decoders
import freshkv.policies  # noqa: F401
from freshkv.core.decoder import Commit, Decoder, Prediction
from freshkv.core.errors import FreshkvError
from freshkv.core.generate import generate
from freshkv.core.plugins import hookimpl
from freshkv.core.policy import CachePolicy, LayerView, LayerwisePolicy
from freshkv.core.registry import decoders, policies
from freshkv.core.run import Run, RunStats
from freshkv.core.selection import Selection
from freshkv.core.trace import StepRecord, Trace
from freshkv.core.version import VERSION
from freshkv.core.view import StepView
from freshkv.models import load

__version__ = VERSION

__all__ = [
    "CachePolicy",
    "Commit",
    "Decoder",
    "FreshkvError",
    "LayerView",
    "LayerwisePolicy",
    "Prediction",
    "Run",
    "RunStats",
    "Selection",
    "StepRecord",
    "StepView",
    "Trace",
    "decoders",
    "generate",
    "hookimpl",
    "load",
    "policies",
]
