"""Count the tokens of the tasks' training problems: the table that ``pc-sampler:frequencies=tiny`` reads.

    python -m training.frequencies

Both bundled models have the same tokenizer, so that one table serves them.
"""

from __future__ import annotations

from freshkv import load_tokenizer
from freshkv.decoders.token_frequency import BUNDLED, count_tokens, write_counts
from freshkv.models.tasks import tasks

PROBLEMS = 500  #: of each task


def main() -> None:
    """Write the table into the package."""
    texts = [
        f"{problem.prompt} {problem.answer}"
        for task in tasks().values()
        for problem in task().generate(PROBLEMS, seed=0, held_out=False)
    ]
    write_counts(count_tokens(texts, load_tokenizer("tiny-llada")), BUNDLED["tiny"])


if __name__ == "__main__":
    main()
