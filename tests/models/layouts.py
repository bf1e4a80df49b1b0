"""The layouts of prepacked weights, and which of them this machine can use."""

import shutil
from pathlib import Path

import pytest
import torch

from freshkv.models.compiled.compiler import COMPILERS

LAYOUTS = (True, "compiled")
PROCESSOR = Path("/proc/cpuinfo")


def why_not_compiled(dtype):
    """What a machine lacks for compiled products, None: nothing, so that whatever goes wrong is an error of ours."""
    if not any(map(shutil.which, COMPILERS)):
        return "needs a C++ compiler"
    if dtype == torch.bfloat16 and not (PROCESSOR.exists() and "amx_bf16" in PROCESSOR.read_text(encoding="utf-8")):
        return "needs a processor with AMX"
    return None


def needs_compiled(layout="compiled", dtype=torch.float32):
    """Skip where a compiled product is asked for and the machine cannot have it."""
    reason = why_not_compiled(dtype) if layout == "compiled" else None
    if reason is not None:
        pytest.skip(reason)
