"""Tables for papers in LaTeX, with booktabs."""

from __future__ import annotations

import re

from freshkv.compare.report.paper import HEADINGS, Block, Line, PaperTable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": "--",
    '"': "''",
    **{character: f"\\{character}" for character in "{}$&#%_"},
}


def latex_table(table: PaperTable) -> str:
    r"""One ``table`` environment; it needs ``\usepackage{booktabs}``."""
    heads = " & ".join(escape_latex(heading) for heading in HEADINGS)
    label = re.sub(r"[^a-z0-9]+", "-", table.name.lower()).strip("-")
    body = [rf"\midrule{_block(block)}" for block in table.blocks]
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\small",
            rf"\caption{{{escape_latex(table.caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(HEADINGS) - 1)}}}",
            r"\toprule",
            rf"{heads} \\",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _block(block: Block) -> str:
    title = escape_latex(f"{block.task}, {block.decoder}")
    head = rf"\multicolumn{{{len(HEADINGS)}}}{{l}}{{\emph{{{title}}}}} \\"
    return "\n".join(["", head, *map(_line, block.lines)])


def _line(line: Line) -> str:
    texts = map(escape_latex, line.cells)
    cells = [rf"\textbf{{{text}}}" if place in line.bold else text for place, text in enumerate(texts)]
    return " & ".join(cells) + r" \\"


def escape_latex(text: str) -> str:
    """``text`` on one line, with nothing in it that LaTeX would read as a command."""
    return "".join(
        _SPECIAL.get(character, character) for character in " ".join(text.split()) if character.isprintable()
    )
