"""Numbers as text, the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from freshkv.compare.statistics import Interval

SMALLEST_P = 0.001  #: p-values below it are written so


def points(difference: float) -> str:
    """A difference of two shares in points: ``-40``, ``+5``, ``0``."""
    rounded = round(100 * difference)
    return f"{rounded:+d}" if rounded != 0 else "0"


def p_value(value: float | None) -> str:
    """``0.031``, ``<0.001``, ``1.000``; ``-`` where there is none."""
    if value is None:
        return "-"
    return f"<{SMALLEST_P}" if value < SMALLEST_P else f"{value:.3f}"


def equation(value: float | None) -> str:
    """``p=0.031``, ``p<0.001``."""
    text = p_value(value)
    return f"p{text}" if text.startswith("<") else f"p={text}"


def times(ratio: float) -> str:
    """A ratio: ``1.81x``."""
    return f"{ratio:.2f}x"


def interval(value: Interval, form: Callable[[float], str]) -> str:
    """``1.75x to 1.90x``."""
    low, high = value
    return f"{form(low)} to {form(high)}"


def percent_range(shares: Sequence[float]) -> str:
    """The least and the largest: ``18% to 25%``, or one of them where they are written alike."""
    low, high = f"{min(shares):.0%}", f"{max(shares):.0%}"
    return low if low == high else f"{low} to {high}"


def join(parts: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; at least one part."""
    listed = list(parts)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
