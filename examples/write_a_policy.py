"""A policy of one's own: whether it is exact when it says so, and what it saves.

python examples/write_a_policy.py
"""

from __future__ import annotations

import attrs
import torch
from attrs import field
from attrs.validators import and_, ge, instance_of

import freshkv
from freshkv import CachePolicy, Selection, StepView


@attrs.frozen
class Rested(CachePolicy):
    """Recompute masks, and every row that was reused for ``patience`` steps. Exact when patience = 1."""

    name = "rested"

    patience: int = field(default=6, validator=and_(instance_of(int), ge(1)))  #: steps

    def select(self, view: StepView) -> Selection:
        """Undecided, just committed, or reused for too long."""
        return Selection(predict=view.is_masked & view.in_block, refresh=view.dirty | (view.age >= self.patience))


def main() -> None:
    """Decode one problem with it, uncached, and in between."""
    model, tokenizer = freshkv.load("tiny-llada"), freshkv.load_tokenizer("tiny-llada")
    ids = torch.tensor([tokenizer.encode("weave 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2")])  # long [batch, prompt]

    runs = {
        policy.spec: freshkv.generate(model, ids, policy=policy, gen_length=64, block_length=16)
        for policy in (Rested(patience=1), Rested(), Rested(patience=24))
    }
    uncached = freshkv.generate(model, ids, policy="none", gen_length=64, block_length=16)
    assert torch.equal(runs["rested:patience=1"].sequences, uncached.sequences), "it said that it is exact"
    for spec, run in runs.items():
        same = int((run.responses == uncached.responses).sum())
        share = run.stats.rows_computed / uncached.stats.rows_computed
        print(f"{spec:20} {share:4.0%} of the uncached rows, {same} of 64 tokens as in the uncached run")


if __name__ == "__main__":
    main()
