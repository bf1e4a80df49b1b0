"""The Markdown pages of the repository, and what is in them."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import field, frozen

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)

_FENCE = re.compile(r"^```(?P<language>\w*)\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (?P<reason>.+) -->$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_INLINE_CODE = re.compile(r"`([^`\n]+)`")


@frozen
class Block:
    """A fenced block of code."""

    language: str  #: "" where none is given
    text: str
    line: int  #: of the file, at which the text begins, from 1
    not_run: str | None = None  #: why it must not be run


@frozen
class Page:
    """A page, read."""

    path: Path
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def blocks(self) -> list[Block]:
        found: list[Block] = []
        opened: tuple[str, int] | None = None
        lines = self.text.splitlines()
        for number, line in enumerate(lines, start=1):
            if opened is not None and line == "```":
                language, start = opened
                found.append(
                    Block(language, "\n".join(lines[start : number - 1]), start + 1, _reason(lines[: start - 1]))
                )
                opened = None
            elif opened is None and (match := _FENCE.match(line)):
                opened = match["language"], number
        assert opened is None, f"{self.name}: the block of line {opened} is never closed"
        return found

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return re.sub(r"^```.*?^```$", "", self.text, flags=re.MULTILINE | re.DOTALL)

    @property
    def links(self) -> list[str]:
        return [match["target"] for match in _LINK.finditer(self.prose)]

    @property
    def inline_code(self) -> list[str]:
        return _INLINE_CODE.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """What headings are called in links, as GitHub and mkdocs name them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, flags=re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}

    def table(self, header: str) -> list[list[str]]:
        """The cells of the first table whose first column is ``header``, without its head."""
        lines = iter(self.text.splitlines())
        for line in lines:
            if _cells(line)[:1] == [header]:
                next(lines)
                return [_cells(row) for row in _while_table(lines)]
        return []


def _reason(before: list[str]) -> str | None:
    """The comment in the last line that is not empty."""
    last = next((line for line in reversed(before) if line.strip()), "")
    match = _NOT_RUN.match(last)
    return None if match is None else match["reason"]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []


def _while_table(lines):
    for line in lines:
        if not line.startswith("|"):
            return
        yield line
