"""Grids: several values in one field of a spec string, ``8|16|32``, and ranges, ``8..32..8`` or ``8..64..*2``.

A range includes its end where a step meets it. Numbers are decimal, so that 0.05..0.2..0.05 is 0.05, 0.1, 0.15, 0.2.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_FLOOR, Decimal, localcontext

#: values that one spec string may stand for
MOST = 1000
DIGITS = 60  #: of decimal arithmetic
HOW = "write START..STOP..STEP such as 8..32..8, or START..STOP..*FACTOR such as 8..64..*2"

_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,4})?"
_RANGE = re.compile(rf"(?P<start>{_NUMBER})\.\.(?P<stop>{_NUMBER})\.\.(?P<times>\*?)(?P<step>{_NUMBER})")
_BEGINS_LIKE_RANGE = re.compile(rf"{_NUMBER}\s*\.\.")
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[^"|]|(?P<bar>\|)')


def looks_like_range(text: str) -> bool:
    """Whether ``text`` begins with a number and two dots; a text value that does so has to be quoted."""
    return _BEGINS_LIKE_RANGE.match(text) is not None


def is_grid(value: str) -> bool:
    """Whether a field's value, as it stands in a spec string, gives several values, or tries to."""
    return len(split_alternatives(value)) > 1 or looks_like_range(value)


def split_alternatives(value: str) -> list[str]:
    """``8|16`` to ``["8", "16"]``; a bar within quotes does not separate."""
    bars = [match.start() for match in _PIECE.finditer(value) if match["bar"] is not None]
    starts, ends = [0, *(bar + 1 for bar in bars)], [*bars, len(value)]
    return [value[start:end].strip() for start, end in zip(starts, ends, strict=True)]


def expand_value(value: str) -> list[str]:
    """All values of one field, in order. Raises ValueError for a range or alternative that cannot be read."""
    found: list[str] = []
    alternatives = split_alternatives(value)
    for alternative in alternatives:
        if not alternative and len(alternatives) > 1:
            raise ValueError("a value between '|' is empty; expected one, such as 8|16|32.")
        found += _expand_range(alternative) if looks_like_range(alternative) else [alternative]
    return found


def _expand_range(text: str) -> list[str]:
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ValueError(f"cannot read the range {text!r}; {HOW} (or quote it if it is no range).")
    with localcontext(prec=DIGITS):
        start, stop, step = (_number(match[part], text) for part in ("start", "stop", "step"))
        geometric = bool(match["times"])
        count = _count_factors(start, stop, step, text) if geometric else _count_steps(start, stop, step, text)
        if count > MOST:
            raise ValueError(f"the range {text!r} has {_shown(count)} values; at most {MOST} are allowed.")
        values = [start * step**index if geometric else start + step * index for index in range(int(count))]
        return [_written(value) for value in values]


def _number(text: str, where: str) -> Decimal:
    if not math.isfinite(float(text)):
        raise ValueError(f"{text} in the range {where!r} is too large.")
    return Decimal(text)


def _count_steps(start: Decimal, stop: Decimal, step: Decimal, text: str) -> Decimal:
    if step == 0:
        raise ValueError(f"the step of the range {text!r} is 0; {HOW}.")
    if (stop - start) * step < 0:
        raise ValueError(f"the range {text!r} never reaches its end; its step must be {_sign(step)}.")
    return _floor((stop - start) / step) + 1


def _count_factors(start: Decimal, stop: Decimal, factor: Decimal, text: str) -> Decimal:
    if start * stop <= 0:
        raise ValueError(f"the range {text!r} multiplies; its start and end must both be positive, or both negative.")
    if factor <= 0 or factor == 1:
        raise ValueError(f"the factor of the range {text!r} is {factor}; expected a positive number other than 1.")
    ratio = stop / start
    if ratio != 1 and (ratio > 1) != (factor > 1):
        raise ValueError(f"the range {text!r} never reaches its end; its factor must be {_side(factor)} 1.")
    steps = _floor(ratio.ln() / factor.ln())
    if steps <= MOST:  # logarithms are rounded: 8..64..*2 must not end at 32
        growing = factor > 1
        if factor ** (steps + 1) == ratio or (factor ** (steps + 1) < ratio) == growing:
            steps += 1
        elif factor**steps != ratio and (factor**steps > ratio) == growing:
            steps -= 1
    return steps + 1


def _sign(step: Decimal) -> str:
    return "negative" if step > 0 else "positive"


def _side(factor: Decimal) -> str:
    return "below" if factor > 1 else "above"


def _floor(value: Decimal) -> Decimal:
    return value.to_integral_value(ROUND_FLOOR)


def _shown(count: Decimal) -> str:
    return str(int(count)) if count < 10**9 else f"about {count:.1e}"


def _written(value: Decimal) -> str:
    """Without an exponent, and whole numbers without a fraction, so that they are read as whole numbers."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
