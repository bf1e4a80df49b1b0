"""A few shapes of SVG, in colours that follow the reader's light or dark scheme."""

from __future__ import annotations

from html import escape

#: role -> (light, dark); ``fill`` and ``line`` of each kind of box
COLOURS = {
    "ink": ("#1f2933", "#e4e8ee"),
    "soft": ("#5c6773", "#a9b3c0"),
    "line": ("#8793a1", "#77828f"),
    "fresh-fill": ("#d3f0df", "#17472f"),
    "fresh-line": ("#23804e", "#4cc287"),
    "cached-fill": ("#eceff4", "#2c3340"),
    "cached-line": ("#8793a1", "#77828f"),
    "stale-fill": ("#ffdcc2", "#5c2f10"),
    "stale-line": ("#b84d10", "#f59455"),
}
KINDS = ("fresh", "cached", "stale")


def _palette(shade: int) -> str:
    return "".join(f"--fk-{role}:{pair[shade]};" for role, pair in COLOURS.items())


# alone, the picture follows the system; put into a page of the site, the scheme that the reader chose there
STYLE = "\n".join(
    (
        f".fk{{{_palette(0)}}}",
        f"@media (prefers-color-scheme:dark){{.fk{{{_palette(1)}}}}}",
        f"[data-md-color-scheme=default] .fk{{{_palette(0)}}}",
        f"[data-md-color-scheme=slate] .fk{{{_palette(1)}}}",
        ".fk text{fill:var(--fk-ink);font:14px system-ui,sans-serif}",
        ".fk text.soft{fill:var(--fk-soft);font-size:12.5px}",
        ".fk text.head{font-weight:600}",
        ".fk text.code{font-family:ui-monospace,monospace;font-size:13px}",
        ".fk .arrow{stroke:var(--fk-line);stroke-width:1.6;fill:none}",
        ".fk .tip{fill:var(--fk-line)}",
        *(f".fk .{kind}{{fill:var(--fk-{kind}-fill);stroke:var(--fk-{kind}-line);stroke-width:1.4}}" for kind in KINDS),
        ".fk .outline{fill:none;stroke:var(--fk-fresh-line);stroke-width:2;stroke-dasharray:5 3}",
    )
)


class Picture:
    """An SVG under construction. Coordinates are pixels, the origin is the upper left corner."""

    def __init__(self, name: str, title: str, width: int, height: int) -> None:
        self.name, self.title, self.width, self.height = name, title, width, height
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str, *, radius: float = 4) -> None:
        """A rectangle: fresh, cached, stale or outline."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'
        )

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "middle") -> None:
        """A line of words whose baseline is at ``y``; style: head, soft, code, or several."""
        named = f' class="{style}"' if style else ""
        self._parts.append(f'<text{named} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>')

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points with a tip at the last."""
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self._parts.append(f'<path class="arrow" d="{path}" marker-end="url(#fk-{self.name}-tip)"/>')

    def labelled(self, x: float, y: float, width: float, height: float, kind: str, words: str = "") -> None:
        """A box with words in its middle."""
        self.box(x, y, width, height, kind)
        if words:
            self.text(x + width / 2, y + height / 2 + 5, words)

    def legend(self, x: float, y: float, entries: dict[str, str]) -> None:
        """Kinds of boxes and what they mean, from left to right."""
        for kind, words in entries.items():
            self.box(x, y, 16, 16, kind, radius=3)
            self.text(x + 23, y + 13, words, "soft", anchor="start")
            x += 42 + 6.4 * len(words)

    def render(self) -> str:
        """The text of the file."""
        tip = f"fk-{self.name}-tip"
        marker = (
            f'<marker id="{tip}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0 0L10 5L0 10z"/></marker>'
        )
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="fk" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" aria-labelledby="fk-{self.name}-title">'
        )
        title = f'<title id="fk-{self.name}-title">{escape(self.title)}</title>'
        parts = (head, title, f"<style>\n{STYLE}\n</style>", f"<defs>{marker}</defs>", *self._parts, "</svg>")
        return "\n".join(parts) + "\n"
