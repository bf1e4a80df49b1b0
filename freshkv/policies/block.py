"""Refresh the open block alone; the block before it once more when it is decided, and nothing that lies behind."""

from __future__ import annotations

from attrs import frozen

from freshkv.core.axes import SEQ
from freshkv.core.policy import CachePolicy
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


@frozen
class BlockCache(CachePolicy):
    """How block-causal networks are decoded: Fast-dLLM v2 (arXiv:2509.26328, section 3), SDAR, LLaDA2.0.

    Keys and values of decided blocks are final, because nothing in them sees a later block. Exact when the network is
    block-causal, blocks are its own and the decoder looks at the open block alone. For other networks it leaves all of
    a decided block as it is, and what lies behind the open block is not seen.
    """

    name = "block"
    paper = "Fast-dLLM v2, arXiv:2509.26328, section 3"
    hides_keys = True
    plans_ahead = True

    def select(self, view: StepView) -> Selection:
        """The open block with what the prompt holds of it, and in its first step the one before."""
        # blocks of block-causal networks are counted from the first token, so that one may begin within the prompt
        counted = (view.is_valid.long().cumsum(dim=SEQ) - 1).clamp(min=0) // view.block_length
        now = (view.block_index * view.in_block).amax(dim=SEQ, keepdim=True)  # long [batch, 1]
        cell = counted.masked_fill(~view.in_block, -1).amax(dim=SEQ, keepdim=True)
        rows = view.in_block | ((counted == cell) & (view.block_index <= now))
        if view.is_block_start:
            rows = rows | (view.block_index == now - 1) | (counted == cell - 1)
        return Selection(predict=view.in_block, refresh=rows & view.is_valid, visible=view.block_index <= now)
