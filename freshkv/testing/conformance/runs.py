"""Runs under observation, and where two of them part."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen

from freshkv.core.decoder import Decoder
from freshkv.core.network import Network
from freshkv.core.policy import CachePolicy
from freshkv.core.run import Run
from freshkv.core.trace import StepRecord
from freshkv.testing.conformance.checks import NotAsPromisedError
from freshkv.testing.conformance.observer import Observer
from freshkv.testing.conformance.partners import describe
from freshkv.testing.problems import Problem


@frozen(eq=False)
class Case:
    """One thing to run: a problem, a policy and a decoder, one of which is under test."""

    problem: Problem
    policy: CachePolicy
    decoder: Decoder
    network: Network | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return describe(self.problem, self.policy, self.decoder)

    def fail(self, found: str) -> NotAsPromisedError:
        """The error that says what was found in this case."""
        return NotAsPromisedError(found, str(self))

    def run(self, **options: Any) -> Run:
        """Decode it; whatever is raised becomes NotAsPromisedError."""
        try:
            return self.problem.run(self.policy, self.decoder, network=self.network, **options)
        except Exception as error:  # a plugin may raise anything
            raise self.fail(f"The run ended with {type(error).__name__}: {error}") from error

    def observe(self, kind: str, *, ask_twice: bool = False, **options: Any) -> tuple[Observer, Run | None]:
        """Decode it, with ``options``, while the policy or the decoder, as ``kind`` says, is watched."""
        observer = Observer(self.policy if kind == "policy" else self.decoder, ask_twice=ask_twice)
        return observer, self.run_watched(observer, kind, **options)

    def run_watched(self, observer: Observer, kind: str, **options: Any) -> Run | None:
        """Decode it once more with the same observer."""
        shape = self.problem.shape

        def start(watched: Any) -> Run:
            pair = (watched, self.decoder) if kind == "policy" else (self.policy, watched)
            return self.problem.run(*pair, network=self.network, **options)

        return observer.run(start, shape.layers, shape.mask_token_id)


def own_steps(run: Run, sequence: int) -> list[StepRecord]:
    """The steps that a sequence took part in."""
    return [step for step in run.trace if step.active[sequence]]


def parting(first: Run, second: Run) -> str | None:
    """Where two runs of one problem part: order, tokens, or confidence of what was committed."""
    for number, (one, other) in enumerate(zip(first.trace, second.trace, strict=False)):
        if not torch.equal(one.committed, other.committed) or not torch.equal(one.remasked, other.remasked):
            return f"other positions are committed in step {number}"
        if not torch.equal(one.tokens, other.tokens):
            return f"other tokens are committed in step {number}"
        mine, theirs = one.confidence[one.committed], other.confidence[one.committed]
        if not torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5, equal_nan=True):
            return f"the tokens of step {number} have another confidence"
    if len(first.trace) != len(second.trace):
        return f"one run takes {len(first.trace)} steps, the other {len(second.trace)}"
    return None if torch.equal(first.sequences, second.sequences) else "the responses differ"


def parting_of_sequence(together: Run, sequence: int, alone: Run, layers: int) -> str | None:
    """Where a sequence's run in a batch parts from its run alone, which may have less padding."""
    mine = own_steps(together, sequence)
    start = together.sequences.shape[1] - alone.sequences.shape[1]
    for number, (here, there) in enumerate(zip(mine, alone.trace, strict=False)):
        for layer in range(layers):
            rows, alone_rows = here.layer(layer)[sequence, start:], there.layer(layer)[0]
            if not torch.equal(rows, alone_rows):
                columns = (rows != alone_rows).nonzero()[:, 0].tolist()
                return f"other rows are refreshed in step {number} (columns {columns}, layer {layer})"
        for name, words in (("committed", "positions are committed"), ("remasked", "positions are masked again")):
            if not torch.equal(getattr(here, name)[sequence, start:], getattr(there, name)[0]):
                return f"other {words} in step {number}"
        if not torch.equal(here.tokens[sequence, start:], there.tokens[0]):
            return f"other tokens are committed in step {number}"
    if len(mine) != len(alone.trace):
        return f"it takes {len(mine)} steps, and alone {len(alone.trace)}"
    return None
