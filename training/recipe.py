"""What a training run is made of."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

WARMUP = 50  #: steps
AVERAGE = 0.995  #: decay of the running average of the weights, a step
MATRIX_RATE = 0.01  #: learning rate of Muon
TABLE_RATE = 2e-3  #: learning rate of AdamW
#: of the sequences with a block in work, those whose rows outside the block do not see it
STALE_SHARE = 0.75
#: shares of a task's sequences that take no independent masks. Most of weave's do not: a model that learns from such
#: masks to see two rows ahead does not notice a row that was never refreshed after its commit, which weave is there for
ORDERED_SHARES = {"sudoku": 0.0, "sums": 0.0, "weave": 0.8}


@frozen
class Recipe:
    """The numbers that may differ from model to model."""

    layers: int
    steps: int
    sequences: Mapping[str, int]  #: of each task in a batch


RECIPES = {
    "tiny-llada": Recipe(layers=4, steps=2000, sequences={"sudoku": 32, "sums": 20, "weave": 12}),
    "tiny-dream": Recipe(layers=5, steps=3000, sequences={"sudoku": 26, "sums": 28, "weave": 10}),
}
