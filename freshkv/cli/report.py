"""``freshkv report``: results as a page to look at, and as tables for papers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from freshkv.cli.console import output, say
from freshkv.cli.failures import Debug, reports_errors
from freshkv.cli.loading import patient
from freshkv.core.errors import InputError

if TYPE_CHECKING:
    from freshkv.compare.report import PaperTable, Source

HELP = (
    "Write results as an HTML page, or as a table for a paper.\n\n"
    "The page is one file that opens from disk and fetches nothing: what is significant and what is not, tables, "
    "Pareto plots, costs, heat maps of drift, and a player that steps through runs side by side. Traces and drift are "
    "taken from the folder beside the results, where compare --traces and --drift left them.\n\n"
    "\b\n"
    "Examples:\n"
    "  freshkv report results/*.jsonl\n"
    "  freshkv report run.jsonl --output run.html\n"
    "  freshkv report run.jsonl --latex table.tex --markdown -\n"
)
STDOUT = "-"


@reports_errors
def report(
    results: Annotated[list[Path], typer.Argument(help="Results files, as compare writes them.", show_default=False)],
    output_file: Annotated[
        Path | None,
        typer.Option("--output", help="The page. Left out: the first results file's name with .html."),
    ] = None,
    markdown: Annotated[
        str | None, typer.Option("--markdown", help="Write tables in Markdown, and no page; - is standard output.")
    ] = None,
    latex: Annotated[
        str | None, typer.Option("--latex", help="Write tables in LaTeX, and no page; - is standard output.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Read results, and write what was asked for; a page where nothing was, or where it has a name."""
    tables = {"markdown": markdown, "latex": latex}
    wants_page = output_file is not None or not any(tables.values())
    page = results[0].with_suffix(".html") if output_file is None else output_file
    _check_targets(results, page if wants_page else None, [target for target in tables.values() if target])
    with patient():
        from freshkv.compare.report import latex_table, markdown_table, read_sources

        sources = read_sources(results, beside=wants_page)
        _write_tables(sources, markdown, markdown_table)
        _write_tables(sources, latex, latex_table)
        if wants_page:
            _write_page(sources, page)


def _check_targets(results: Sequence[Path], page: Path | None, tables: Sequence[str]) -> None:
    """Raise InputError before anything is written over, or twice."""
    files = [Path(target) for target in tables if target != STDOUT] + ([] if page is None else [page])
    for file in files:
        if file.resolve() in {path.resolve() for path in results}:
            raise InputError(f"{file} is a results file; choose another name for what is written.")
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("Two outputs have the same name; expected one each.")


def _write_page(sources: Sequence[Source], path: Path) -> None:
    from freshkv.compare.report import write_page

    write_page(sources, path)
    output().print(f"Report: {path}", markup=False, soft_wrap=True)


def _write_tables(sources: Sequence[Source], target: str | None, form: Callable[[PaperTable], str]) -> None:
    from freshkv.compare.report import paper_table
    from freshkv.compare.report.page import write_text

    if not target:
        return
    text = "\n".join(form(paper_table(source)) for source in sources)
    if target == STDOUT:
        typer.echo(text, nl=False)
        return
    write_text(Path(target), text)
    say(f"Wrote {target}")
