"""The report of a comparison: an HTML page, and tables for papers."""

from freshkv.compare.report.latex import latex_table
from freshkv.compare.report.markdown import markdown_table
from freshkv.compare.report.page import render_page, write_page
from freshkv.compare.report.paper import PaperTable, paper_table
from freshkv.compare.report.sources import Source, read_sources

__all__ = [
    "PaperTable",
    "Source",
    "latex_table",
    "markdown_table",
    "paper_table",
    "read_sources",
    "render_page",
    "write_page",
]
