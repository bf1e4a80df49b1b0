"""The HTML page: one file that opens from disk and fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from freshkv.compare.report.assets import content_policy, own_scripts, plotly_script, styles
from freshkv.compare.report.figures import figure_sections
from freshkv.compare.report.heatmaps import drift_data
from freshkv.compare.report.payload import embed
from freshkv.compare.report.player import player_cases
from freshkv.compare.report.reproduce import reproduce
from freshkv.compare.report.sources import Source
from freshkv.compare.report.tables import html_tables
from freshkv.compare.report.words import describe, doubts_together
from freshkv.core.errors import ResultsError
from freshkv.core.version import VERSION


def render_page(sources: Sequence[Source]) -> str:
    """The whole page as text. Raises InputError where plotly is not installed."""
    scripts = [plotly_script(), *own_scripts()]
    environment = Environment(
        loader=PackageLoader("freshkv.compare.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["embed"] = embed
    return environment.get_template("page.html").render(
        title=", ".join(source.name for source in sources),
        version=VERSION,
        sources=[describe(source) for source in sources],
        doubts=doubts_together(sources),
        tables=html_tables(sources),
        figures=figure_sections(sources),
        drift=drift_data(sources),
        cases=player_cases(sources),
        reproduce=[reproduce(source) for source in sources],
        scripts=scripts,
        styles=styles(),
        content_policy=content_policy(scripts),
    )


def write_page(sources: Sequence[Source], path: Path) -> None:
    """Write the page; it is complete or not there at all. Raises ResultsError if it cannot be written."""
    write_text(path, render_page(sources))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all; what UTF-8 cannot hold becomes a question mark."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(text.encode("utf-8", "replace"))
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # it was never there, or cannot be removed either
            partial.unlink()
        raise ResultsError(f"Cannot write {path}: {error.strerror}. Choose another file.") from error
