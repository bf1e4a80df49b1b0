"""Tables for papers in Markdown."""

from __future__ import annotations

import re

from freshkv.compare.report.paper import HEADINGS, Line, PaperTable

#: what Markdown would read as markup
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~&$])")


def markdown_table(table: PaperTable) -> str:
    """One table with its caption above."""
    headings = ("task", "decoder", *HEADINGS)
    rule = "|".join(["---"] * 3 + ["---:"] * (len(HEADINGS) - 1))
    lines = [
        f"| {escape_markdown(block.task)} | {escape_markdown(block.decoder)} | {' | '.join(_cells(line))} |"
        for block in table.blocks
        for line in block.lines
    ]
    return "\n".join([escape_markdown(table.caption), "", f"| {' | '.join(headings)} |", f"|{rule}|", *lines, ""])


def _cells(line: Line) -> list[str]:
    texts = map(escape_markdown, line.cells)
    return [f"**{text}**" if place in line.bold else text for place, text in enumerate(texts)]


def escape_markdown(text: str) -> str:
    """``text`` on one line, with nothing in it that Markdown or HTML would read as markup."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
