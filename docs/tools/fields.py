"""griffe extension: the fields of a class, with their ``#:`` comments, become the list of its attributes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import griffe

#: an entry without words would not be read as one
_NO_WORDS = "&#8203;"


class FieldComments(griffe.Extension):
    """Reads comments at the end of a field's lines or above them, and the defaults behind ``field(...)``."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add an Attributes section to the docstring."""
        entries = [
            f"    {name}: {_comment(attribute)}{_default(attribute)}{_NO_WORDS}"
            for name, attribute in cls.attributes.items()
            if attribute.annotation is not None and "property" not in attribute.labels and not name.startswith("_")
        ]
        if entries:
            if cls.docstring is None:
                cls.docstring = griffe.Docstring("", parent=cls)
            cls.docstring.value += "\n\nAttributes:\n" + "\n".join(entries)


def _comment(attribute: griffe.Attribute) -> str:
    """The words of its comment as a sentence; nothing if there is none."""
    return re.sub(r"(?<!\.)$", ".", " ".join(_comment_lines(attribute))).lstrip(".")


def _comment_lines(attribute: griffe.Attribute) -> Iterator[str]:
    lines = attribute.lines_collection[attribute.filepath]
    start, end = (attribute.lineno or 1) - 1, attribute.endlineno or 1
    first = start
    while first > 0 and lines[first - 1].lstrip().startswith("#:"):
        first -= 1
    for line in lines[first:end]:
        yield from (words.strip() for words in re.findall(r"#: ?(.*)$", line))


def _default(attribute: griffe.Attribute) -> str:
    text = str(attribute.value or "")
    if text.startswith(("field(", "attrs.field(")):
        call = ast.parse(text, mode="eval").body
        keywords = {word.arg: ast.unparse(word.value) for word in getattr(call, "keywords", ())}
        text = keywords.get("default", "")
    return f" Default: `{text}`." if re.fullmatch(r"[\w.\"'-]+", text) else ""
