"""Scripts and styles of the page, and the policy that lets it run these and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files

from freshkv.core.errors import InputError

SCRIPTS = ("base.js", "tables.js", "plots.js", "drift.js", "player.js")
STYLES = ("page.css", "player.css")
NEEDS_PLOTLY = (
    "The HTML report draws its figures with plotly, which is not installed: pip install 'freshkv[report]'. "
    "The tables of --markdown and --latex do without it."
)


def plotly_script() -> str:
    """The text of plotly.js. Raises InputError where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise InputError(NEEDS_PLOTLY) from error
    return str(get_plotlyjs())


def own_scripts() -> list[str]:
    """The report's own scripts, in the order in which they run."""
    return [_read(name) for name in SCRIPTS]


def styles() -> str:
    """The report's own styles."""
    return "\n".join(map(_read, STYLES))


def content_policy(scripts: Iterable[str]) -> str:
    """A Content-Security-Policy: these scripts run, by their hashes; nothing else does, and nothing is fetched."""
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _read(name: str) -> str:
    return files("freshkv.compare.report").joinpath("static", name).read_text(encoding="utf-8")
