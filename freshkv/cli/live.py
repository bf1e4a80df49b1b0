"""A run as it happens, step by step; readable without colour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from freshkv.cli.console import messages, say

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from freshkv.core.trace import StepRecord

LEGEND = "[x] committed  _ mask  rows: # recomputed  + in some layers  . reused"
MASK = "_"
STYLES = {"#": "yellow", "+": "dark_orange3", ".": "dim", "_": "dim", "[": "bold green", "<": "bold red"}


class StepDisplay:
    """A context manager; ``show`` is what ``freshkv.generate`` calls after each step of one sequence."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, mask_token_id: int, prompt_length: int, delay: float
    ) -> None:
        self._tokenizer, self._mask, self._prompt_length = tokenizer, mask_token_id, prompt_length
        self._delay = delay  #: seconds that a step stays on the screen
        self._step = 0
        console = messages()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._console = console
        self._word = cache(self._decode)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, step: StepRecord) -> None:
        """Draw the canvas in a terminal; write a line elsewhere."""
        self._step += 1
        if self._live is None:
            say(self.headline(step))
            return
        self._live.update(self.frame(step, self._console), refresh=True)
        time.sleep(self._delay)

    def headline(self, step: StepRecord) -> str:
        """``step 12: 16 of 131 rows computed, committed 5 at 40``."""
        committed = [
            f"{self._word(token)} at {position - self._prompt_length}"
            for position, token in enumerate(step.tokens[0].tolist())
            if bool(step.committed[0, position])
        ]
        rows = f"{step.rows_computed} of {step.tokens.shape[1]} rows computed"
        return f"step {self._step}: {rows}, committed {', '.join(committed)}"

    def frame(self, step: StepRecord, console: Console) -> Group:
        """The whole canvas."""
        marks = row_marks(step)
        prompt = Text("".join(marks[: self._prompt_length]))
        prompt.highlight_regex(r"#+", STYLES["#"])
        prompt.highlight_regex(r"\++", STYLES["+"])
        cells = self._cells(step)
        lines = pair_lines(cells, marks[self._prompt_length :], console.width)
        return Group(
            Text(self.headline(step), style="bold"),
            Text("prompt rows"),
            prompt,
            Text("response, and its rows below"),
            *lines,
            Text(LEGEND, style="dim"),
        )

    def _cells(self, step: StepRecord) -> list[str]:
        cells = []
        for position in range(self._prompt_length, step.tokens.shape[1]):
            word = self._word(int(step.tokens[0, position]))
            if bool(step.committed[0, position]):
                cells.append(f"[{word}]")
            elif bool(step.remasked[0, position]):
                cells.append(f"<{word}>")
            else:
                cells.append(f" {word} ")
        return cells

    def _decode(self, token: int) -> str:
        if token == self._mask:
            return MASK
        text = str(self._tokenizer.decode([token]))
        return repr(text)[1:-1] if not text.isprintable() else text.strip() or "\N{OPEN BOX}"


def row_marks(step: StepRecord) -> list[str]:
    """For each row ``#`` recomputed in all layers, ``+`` in some, ``.`` in none."""
    anywhere = step.refreshed[0].tolist()
    by_layer = step.refreshed_by_layer
    everywhere = anywhere if by_layer is None else by_layer[:, 0].all(dim=0).tolist()
    return ["#" if all_layers else "+" if some else "." for all_layers, some in zip(everywhere, anywhere, strict=True)]


def pair_lines(cells: Sequence[str], marks: Sequence[str], width: int) -> list[Text]:
    """Lines of cells, each with the marks of its rows below it."""
    lines: list[Text] = []
    tokens, rows = Text(), Text()
    for cell, mark in zip(cells, marks, strict=True):
        if tokens.cell_len + cell_len(cell) > width and tokens.cell_len > 0:
            lines += [tokens, rows]
            tokens, rows = Text(), Text()
        tokens.append(cell, style=STYLES.get(cell.strip()[:1], ""))
        rows.append(f" {mark}".ljust(cell_len(cell)), style=STYLES[mark])
    return [*lines, tokens, rows]
