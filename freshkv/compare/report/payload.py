"""Data inside the page: packed, and safe wherever in HTML it stands."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any


def pack(value: Any) -> str:
    """Base64 of gzip of JSON, which the page unpacks when it needs it; the same value always gives the same text."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("ascii"), mtime=0)).decode("ascii")


def embed(value: Any) -> str:
    """JSON for a ``<script type="application/json">``: nothing in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def visible(word: str) -> str:
    """A token's text as one line on which every character can be seen."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in word)
    return shown.strip(" ") or "\N{OPEN BOX}"
