"""What happens on a CPU when few rows are computed, as code that is compiled where it is used.

Products overlap bringing a weight and multiplying it; the rest takes one pass over memory.
"""

from freshkv.models.compiled.attention import CompiledAttention
from freshkv.models.compiled.layout import CompiledLayout
from freshkv.models.compiled.logits import summarise
from freshkv.models.compiled.rowwise import rowwise_for

__all__ = ["CompiledAttention", "CompiledLayout", "rowwise_for", "summarise"]
