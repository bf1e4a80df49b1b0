"""The layouts of prepacked weights, and which of them this machine can use."""

import pytest
import torch

from freshkv.core.errors import InputError
from freshkv.models.compiled.kernel import kernel_for

LAYOUTS = (True, "compiled")


def needs_compiled(layout="compiled", dtype=torch.float32):
    """Skip where a compiled product is asked for and cannot be had: no compiler, or no AMX for bfloat16."""
    if layout != "compiled":
        return
    try:
        kernel_for(dtype)
    except InputError as error:
        pytest.skip(str(error))
