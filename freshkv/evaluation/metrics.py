"""Speed of a generation, from totals: a long answer counts for what it is, and no ratio is averaged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from attrs import frozen

from freshkv.evaluation.responses import AnswerRecord

_SUMS = (
    "answer_tokens",
    "response_tokens",
    "prompt_tokens",
    "forwards",
    "passes",
    "rows_computed",
    "rows_total",
    "seconds",
)


@frozen(kw_only=True)
class GenerationTotals:
    """Sums over answers. A pass over a batch of four sequences is one pass, and four forwards, one of each."""

    answers: int = 0
    answer_tokens: int = 0  #: without prompt, padding, and whatever follows the end of an answer
    response_tokens: int = 0  #: every position of the responses
    prompt_tokens: int = 0
    forwards: int = 0  #: passes that each sequence took part in
    passes: float = 0.0  #: each counted once, whoever shared it
    rows_computed: float = 0.0
    rows_total: int = 0  #: rows of the same passes without a cache
    seconds: float = 0.0  #: of decoding, summed over processes

    @classmethod
    def of(cls, records: Iterable[AnswerRecord]) -> GenerationTotals:
        """The sums over ``records``, each key once."""
        unique = list({record.key: record for record in records}.values())
        sums = {name: sum(getattr(record, name) for record in unique) for name in _SUMS}
        return cls(answers=len(unique), **sums)

    def __add__(self, other: GenerationTotals) -> GenerationTotals:
        names = ("answers", *_SUMS)
        return GenerationTotals(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def tokens_per_second(self) -> float | None:
        """Answer tokens a second of one process; None where nothing was generated."""
        return self.answer_tokens / self.seconds if self.seconds > 0 else None

    @property
    def tokens_per_forward(self) -> float | None:
        """Answer tokens a forward pass of one sequence."""
        return self.answer_tokens / self.forwards if self.forwards > 0 else None

    @property
    def seconds_per_forward(self) -> float | None:
        """Seconds that one sequence's share of a forward pass takes; with batch 1, a pass."""
        return self.seconds / self.forwards if self.forwards > 0 else None

    @property
    def sequences_per_pass(self) -> float | None:
        """How full batches were on average: what a pass is shared by."""
        return self.forwards / self.passes if self.passes > 0 else None

    @property
    def response_tokens_per_second(self) -> float | None:
        """Every position of the response counted, as if nothing ended early."""
        return self.response_tokens / self.seconds if self.seconds > 0 else None

    @property
    def rows_share(self) -> float | None:
        """Rows computed in a pass, as a share of what no cache would compute."""
        return self.rows_computed / self.rows_total if self.rows_total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values, ratios included."""
        ratios = (
            "tokens_per_second",
            "tokens_per_forward",
            "seconds_per_forward",
            "sequences_per_pass",
            "response_tokens_per_second",
            "rows_share",
        )
        return {**attrs.asdict(self), **{name: getattr(self, name) for name in ratios}}
