"""Writes the tables of docs/performance.md from the files in benchmarks/results/: ``python -m benchmarks.report``.

A table stands between ``<!-- measured: NAME -->`` and ``<!-- end -->``; one whose file is missing is left as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.limits import lines
from benchmarks.peers.methods import METHODS
from benchmarks.profile import PARTS, Profile

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
OURS, PREPACKED, PLAIN = "freshkv", "freshkv, prepacked", "freshkv, plain"
#: steps below which an interval says nothing
FEW = 10
_MARKED = re.compile(r"(?P<open><!-- measured: (?P<name>\w+) -->\n).*?(?P<close><!-- end -->)", re.DOTALL)


def main() -> None:
    """Fill in what has been measured."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    print(f"wrote {PAGE}")


def render(text: str, results: Path) -> str:
    """The page with its tables as the files say."""

    def fill(match: re.Match[str]) -> str:
        file = results / f"{match['name']}.json"
        if not file.exists():
            return match[0]
        table = TABLES[match["name"]](json.loads(file.read_text(encoding="utf-8")))
        return f"{match['open']}\n{table}\n\n{match['close']}"

    return _MARKED.sub(fill, text)


def peers(results: dict[str, Any]) -> str:
    """Milliseconds of a step of each implementation, and the ratio of the fastest other to ours beside its target."""
    cells = []
    # one thread never waits for another: its processor time is right even where other processes share the machine
    clock = "processor" if results["machine"]["threads"] == 1 else "wall"
    for entry in results["measured"]:
        figures = entry["implementations"]
        others = {name: each for name, each in figures.items() if name not in {OURS, PREPACKED, PLAIN}}
        if not others:
            continue
        fastest = min(others, key=lambda name: others[name][clock]["step"]["value"])
        ratio, target = others[fastest][clock]["ratio"], METHODS[entry["method"]].target
        cells.append(
            (
                f"`{entry['policy']}`",
                entry["setting"]["dtype"],
                _milliseconds(figures[OURS], clock),
                *(_milliseconds(figures[name], clock) if name in figures else "" for name in (PREPACKED, PLAIN)),
                "; ".join(f"{name} {_milliseconds(each, clock)}" for name, each in others.items()),
                f"{ratio['value']:.2f} {_spread(ratio, min(each['steps'] for each in figures.values()))}",
                f"{target:.1f}: {'reached' if ratio['value'] >= target else 'not reached'}",
            )
        )
    heads = (
        "policy",
        "dtype",
        "freshkv, ms",
        "oneDNN, ms",
        "plain weights, ms",
        "published, ms",
        "fastest published / freshkv",
        "target",
    )
    return _table(heads, cells)


def _spread(ratio: dict[str, float], steps: int) -> str:
    """The interval, where there are steps enough for one."""
    return f"({ratio['low']:.2f} to {ratio['high']:.2f})" if steps >= FEW else f"(of {steps} steps only)"


def _milliseconds(figures: dict[str, Any], clock: str) -> str:
    return f"{1000 * figures[clock]['step']['value']:.1f}"


def limits(results: Sequence[dict[str, Any]]) -> str:
    """Time against the matrix rate, and speed-up against the ideal, on the clock."""
    cells = [
        (f"`{name}`", entry["setting"]["dtype"], *line)
        for entry in results
        for name, line in lines(entry, "wall").items()
    ]
    heads = (
        "policy",
        "dtype",
        "ms",
        "GFLOP",
        "x large squares",
        "x its own products",
        "speed-up over `none`",
        "of the ideal",
    )
    return _table(heads, cells)


def profile(results: Sequence[dict[str, Any]]) -> str:
    """Parts of a step in milliseconds."""
    cells = []
    for entry in results:
        each = Profile(**entry)
        parts = [f"{each.parts[part]:.1f}" for part in PARTS]
        cells.append((f"`{each.policy}`", each.dtype, f"{each.total:.1f}", *parts, f"{each.matrix_share:.0%}"))
    return _table(("policy", "dtype", "step", *PARTS, "matrix work"), cells)


def scaling(results: Sequence[dict[str, Any]]) -> str:
    """A step at a fixed number of refreshed rows by the length of the canvas."""
    cells = [
        (
            str(entry["sequence"]),
            entry["dtype"],
            f"{1000 * entry['wall']:.1f}",
            f"{1000 * entry['attention']:.1f}",
            f"{entry['peak_bytes_of_the_run'] / 2**20:.0f}",
            f"{entry['cache_bytes'] / 2**20:.0f}",
            f"{entry['weight_bytes'] / 2**20:.0f}",
        )
        for entry in results
    ]
    heads = ("positions", "dtype", "ms a step", "ms attention alone", "run's peak, MiB", "caches, MiB", "weights, MiB")
    return _table(heads, cells)


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


TABLES: dict[str, Callable[[Any], str]] = {
    "peers": peers,
    "limits": limits,
    "profile": profile,
    "scaling": scaling,
}

if __name__ == "__main__":
    main()
