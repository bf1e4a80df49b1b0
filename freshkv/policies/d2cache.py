"""Refresh the masked positions that are likely to be decoded next, and the rows that attention relies on."""

from __future__ import annotations

import torch
from attrs import field, frozen
from attrs.validators import and_, ge, gt, instance_of, le
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.density import certainty_density
from freshkv.core.policy import CachePolicy
from freshkv.core.ranking import best
from freshkv.core.selection import Selection
from freshkv.core.view import StepView


@frozen
class D2Cache(CachePolicy):
    """d2Cache (arXiv:2509.23094, section 3). Exact when current_k covers the response and rollout_p is 1.

    Parallel decoding goes well with ``inflate_w`` = 4.
    """

    name = "d2cache"
    paper = "d2Cache, arXiv:2509.23094, section 3"
    needs = frozenset({"confidence", "attention_rollout"})
    tuned_for = "LLaDA-8B and Dream-7B on gsm8k, math-500, gpqa, mmlu-pro, humaneval and mbpp"
    budget_field = "current_k"
    plans_ahead = True

    #: share of the importance of all rows not chosen otherwise that is refreshed
    rollout_p: float = field(default=0.1, converter=float, validator=and_(ge(0.0), le(1.0)))
    current_k: int = field(default=32, validator=and_(instance_of(int), ge(1)))  #: masked positions to predict
    sigma: float = field(default=10.0, converter=float, validator=gt(0.0))  #: positions; width of the certainty density
    inflate_w: int = field(default=0, validator=and_(instance_of(int), ge(0)))  #: positions; gaps up to this are filled

    def select(self, view: StepView) -> Selection:
        """Everything first; then likely positions, what was just committed, and what is attended to most."""
        if view.step == 0:
            return Selection(predict=view.everything)
        predict = self._likely(view)
        rows = view.rows_for(predict) | view.dirty
        important = self._important(view.signals["attention_rollout"], (~rows) & view.is_valid)
        return Selection(predict=predict, refresh=fill_gaps(rows | important, self.inflate_w))

    def _likely(self, view: StepView) -> Tensor:
        """The best masked positions of the search window, those of the active block before all others."""
        masks_so_far = view.is_masked.long().cumsum(dim=SEQ)
        last_block = (view.is_masked & (masks_so_far == self.current_k)).long() * view.block_index
        final = torch.where(
            (masks_so_far[:, -1:] < self.current_k), view.block_index[:, -1:], last_block.amax(dim=SEQ, keepdim=True)
        )
        window = view.is_masked & (view.block_index <= final)
        density = certainty_density(view.is_masked, view.is_prompt, self.sigma)
        score = torch.where(window, view.confidence, 0.0) * density
        return best(score + 2 * view.in_block, window, self.current_k)

    def _important(self, importance: Tensor, others: Tensor) -> Tensor:
        """The most attended rows of ``others`` while their share of the importance stays within ``rollout_p``."""
        mine = importance.masked_fill(~others, 0.0)
        order = mine.argsort(dim=SEQ, descending=True, stable=True)
        cumulative = mine.gather(SEQ, order).cumsum(dim=SEQ)
        share = cumulative / cumulative[:, -1:]  # its own last entry: a share of 1 is then reached exactly
        within = share <= self.rollout_p
        within[:, 0] = True  # the most attended row in any case
        return others & torch.zeros_like(others).scatter(SEQ, order, within)


def fill_gaps(chosen: Tensor, width: int) -> Tensor:
    """``chosen``, bool [batch, seq], and the rows between two chosen ones at most ``width`` apart."""
    if width == 0:
        return chosen
    position = torch.arange(chosen.shape[SEQ], device=chosen.device).expand_as(chosen)
    before = torch.where(chosen, position, -(width + 1)).cummax(dim=SEQ).values
    beyond = torch.where(chosen, position, position.shape[SEQ] + width + 1)
    after = beyond.flip(SEQ).cummin(dim=SEQ).values.flip(SEQ)
    return chosen | (after - before <= width)
