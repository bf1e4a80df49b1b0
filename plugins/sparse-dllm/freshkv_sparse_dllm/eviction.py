"""Recompute the block, and hide the keys outside it that the block hardly asks for."""

from __future__ import annotations

import attrs
import torch
from attrs.validators import and_, ge, instance_of, le
from torch import Tensor
from torch.nn import functional

from freshkv import CachePolicy, Selection, StepView, best


def _odd(_: object, field: attrs.Attribute[int], value: int) -> None:
    if value % 2 == 0:
        raise ValueError(f"'{field.name}' must be odd: {value}")


@attrs.frozen
class SparseDLLM(CachePolicy):
    """Sparse-dLLM (arXiv:2508.02558). Exact when no block takes more than ``delay`` + 1 steps.

    Everything is refreshed when a block opens and for ``delay`` steps more. Then each layer keeps, of the keys outside
    the block, the share ``retention`` that is most similar to the block's mean query, and only the block is recomputed.
    """

    name = "sparse-dllm"
    paper = "Sparse-dLLM, arXiv:2508.02558"
    needs = frozenset({"attention_scores"})
    tuned_for = "LLaDA-8B and Dream-7B on eight tasks, with one setting"
    hides_keys = True
    plans_ahead = True

    #: share of the keys outside the block that stays visible
    retention: float = attrs.field(default=0.5, converter=float, validator=and_(ge(0.0), le(1.0)))
    kernel: int = attrs.field(default=3, validator=[and_(instance_of(int), ge(1)), _odd])  #: positions; max-pooling
    delay: int = attrs.field(default=1, validator=and_(instance_of(int), ge(0)))  #: steps

    def select(self, view: StepView) -> Selection:
        """Everything until the keys are chosen; then the block, which sees those keys only."""
        since_full = view.step_in_block - self.delay
        if since_full <= 0:
            return Selection(predict=view.everything)
        visible = self._retained(view) if since_full == 1 else view.memory["visible"].transpose(1, 2)
        return Selection(predict=view.in_block, visible=visible, remember={"visible": visible.transpose(1, 2)})

    def _retained(self, view: StepView) -> Tensor:
        """The block, and the keys outside it that it asks for most: bool [batch, layers, seq]."""
        scores = view.signals["attention_scores"]
        layers = scores.shape[1]
        outside = view.is_valid & ~view.in_block
        scores = scores.masked_fill(~outside[:, None], -torch.inf)
        pooled = functional.max_pool1d(scores, self.kernel, stride=1, padding=self.kernel // 2)
        count = (outside.sum(dim=1).double() * self.retention).long().repeat_interleave(layers)  # long [batch * layers]
        among = outside.repeat_interleave(layers, dim=0)
        kept = best(pooled.flatten(0, 1), among, count[:, None]).view_as(scores)
        return kept | view.in_block[:, None]
