"""Fixed schedules: how many tokens a step commits."""

from __future__ import annotations

from freshkv.core.view import StepView


def tokens_of_step(view: StepView, steps: int) -> int:
    """Tokens to commit in this step so that ``steps`` passes decode the response (LLaDA, arXiv:2502.09992).

    Every block gets the same number of passes, at least one and at most one a position; within a block the first
    passes take the remainder.
    """
    blocks = -(-view.gen_length // view.block_length)  # aligned or not
    in_block = min(max(steps // blocks, 1), view.block_length)
    share, rest = divmod(view.block_length, in_block)
    return share + (1 if view.step_in_block < rest else 0)
