"""What a training run is made of."""

from __future__ import annotations

from attrs import frozen

STEPS = 2000
WARMUP = 50  #: steps
AVERAGE = 0.995  #: decay of the running average of the weights, a step
MATRIX_RATE = 0.01  #: learning rate of Muon
TABLE_RATE = 2e-3  #: learning rate of AdamW


@frozen
class Share:
    """A task's part of every batch."""

    sequences: int
    ordered: float = 0.0  #: share of the sequences that take no independent masks


#: Weave takes few independent masks: a model that learns from them to see two rows ahead does not notice that a row was
#: never refreshed after its token was committed, and to notice that is what the task is for.
SHARES = {"sudoku": Share(32), "sums": Share(20), "weave": Share(12, ordered=0.8)}

#: of the sequences with a block in work, those whose rows outside the block do not see it
STALE_SHARE = 0.75
