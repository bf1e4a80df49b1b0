"""A decoder of one's own: commit a span of neighbours at once, as far as they are certain.

python examples/write_a_decoder.py
"""

from __future__ import annotations

import attrs
import torch
from attrs import field
from attrs.validators import and_, ge, le
from torch import Tensor

import freshkv
from freshkv import Prediction, RankedDecoder, StepView


@attrs.frozen
class Leading(RankedDecoder):
    """Commit from the left edge of what is open, as long as every token up to there is certain."""

    name = "leading"

    threshold: float = field(default=0.8, converter=float, validator=and_(ge(0.0), le(1.0)))  #: raw confidence

    def accept(self, view: StepView, prediction: Prediction, ranking: Tensor) -> Tensor:
        """Predicted positions to whose left no uncertain one is predicted."""
        uncertain = prediction.positions & (prediction.confidence < self.threshold)  # bool [batch, seq]
        return prediction.positions & (uncertain.cumsum(dim=1) == 0)


def main() -> None:
    """Decode one problem with it, and one token at a time."""
    model, tokenizer = freshkv.load("tiny-llada"), freshkv.load_tokenizer("tiny-llada")
    ids = torch.tensor([tokenizer.encode("weave 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3 2")])  # long [batch, prompt]
    for decoder in (Leading(), Leading(threshold=1.0), "confidence", "threshold:threshold=0.8"):
        run = freshkv.generate(model, ids, decoder=decoder, policy="dual", gen_length=64, block_length=16)
        title = decoder if isinstance(decoder, str) else decoder.spec
        print(f"{title:24} {run.stats.forwards:3} forward passes  {tokenizer.decode(run.responses[0])}")


if __name__ == "__main__":
    main()
