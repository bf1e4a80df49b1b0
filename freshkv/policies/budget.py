"""What policies of a fixed budget share: how many rows a step refreshes, and how many of them predict."""

from __future__ import annotations

from abc import abstractmethod

from attrs import field, frozen
from attrs.validators import and_, gt, le
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.policy import CachePolicy
from freshkv.core.ranking import best
from freshkv.core.selection import Selection
from freshkv.core.view import StepView

#: keeps a product such as 0.1 * 30 from being rounded down to 2
_ROUNDING = 1e-9


@frozen
class BudgetedPolicy(CachePolicy):
    """The first step refreshes everything, every other a fixed share of the valid rows, by two rankings.

    Half of a step's rows, rounded up, are among those that predict an open position of the active block: what is not
    refreshed is not predicted, and a decoder can only choose among what is. All other rows are drawn from the whole
    canvas. The number of rows is rounded so that it keeps to the budget in the sum over steps; it is at least one.
    """

    budget_field = "budget"

    #: share of the valid rows of the canvas that a step refreshes
    budget: float = field(default=0.1, converter=float, validator=and_(gt(0.0), le(1.0)))

    @abstractmethod
    def rank(self, view: StepView) -> tuple[Tensor, Tensor]:
        """Two scores of rows, float [batch, seq], finite: for rows that predict, and for all others. Highest first."""

    def select(self, view: StepView) -> Selection:
        """Rows that predict open positions of the block, then others."""
        if view.step == 0:
            return Selection(predict=view.everything)
        to_predict, to_refresh = self.rank(view)
        count = self.rows(view)
        predicting = best(to_predict, view.rows_for(view.is_open & view.in_block) & view.is_valid, (count + 1) // 2)
        others = best(to_refresh, view.is_valid & ~predicting, count - predicting.sum(dim=SEQ, keepdim=True))
        return Selection(predict=view.nothing, refresh=predicting | others)

    def rows(self, view: StepView) -> Tensor:
        """How many rows this step refreshes, long [batch, 1]."""
        share = self.budget * view.is_valid.sum(dim=SEQ, keepdim=True).double()
        so_far, before = ((share * steps + _ROUNDING).floor() for steps in (view.step, view.step - 1))
        return (so_far - before).long().clamp(min=1)
