"""What happens on a CPU when few rows are computed, as code that is compiled where it is used.

Products overlap bringing a weight and multiplying it; the rest takes one pass over memory.
"""

from concurrent.futures import ThreadPoolExecutor

import torch

from freshkv.models.compiled.attention import CompiledAttention
from freshkv.models.compiled.compiler import compiled
from freshkv.models.compiled.kernel import SOURCES, kernel_for
from freshkv.models.compiled.layout import CompiledLayout
from freshkv.models.compiled.logits import summarise
from freshkv.models.compiled.rowwise import rowwise_for

__all__ = ["CompiledAttention", "CompiledLayout", "compile_all", "rowwise_for", "summarise"]


def compile_all(dtype: torch.dtype) -> None:
    """Compile all that a model of ``dtype``, float32 or bfloat16, uses, so that no step waits for it: two seconds.

    Raises InputError if there is no compiler, if it cannot make a library, or if this processor cannot use one.
    """
    sources = (SOURCES[dtype], "rowwise.cpp", "attention.cpp", "logits.cpp")
    with ThreadPoolExecutor(len(sources)) as compilers:
        list(compilers.map(compiled, sources))
    kernel_for(dtype)
