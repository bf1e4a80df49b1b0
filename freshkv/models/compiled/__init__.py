"""Products of few rows with weights that overlap bringing a weight and multiplying it; compiled where they are used."""

from freshkv.models.compiled.attention import CompiledAttention
from freshkv.models.compiled.layout import CompiledLayout
from freshkv.models.compiled.rowwise import rowwise_for

__all__ = ["CompiledAttention", "CompiledLayout", "rowwise_for"]
