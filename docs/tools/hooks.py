"""mkdocs hooks: pictures become part of their page, and fields without words end where their type ends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parents[1] / "pictures"
_IMAGE = re.compile(r'<p><img alt="[^"]*" src="(?:\.\./)*pictures/(?P<name>[\w-]+)\.svg" ?/></p>')
# what docs/tools/fields.py leaves where a field has no comment
_NO_WORDS = re.compile(r'\u2013\s*<div class="doc-md-description">\s*<p>&#8203;</p>\s*</div>')


def on_page_content(html: str, **_: Any) -> str:
    """Put each SVG in place of its ``img``, so that it follows the scheme of the page; take out what is empty."""
    html = _NO_WORDS.sub("", html).replace("&#8203;", "")
    return _IMAGE.sub(lambda match: f'<div class="picture">{_picture(match["name"])}</div>', html)


def _picture(name: str) -> str:
    return (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
