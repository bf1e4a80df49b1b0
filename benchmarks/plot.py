"""Pictures for the docs: time of a step by policy from ``make bench``, and where it goes from ``benchmarks.profile``.

python -m benchmarks.plot benchmarks/results/bench-quick.json --profile benchmarks/results/profile.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.profile import MATRIX, PARTS, Profile
from docs.tools.svg import Picture

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
LEFT, WIDTH, ROOM, BAR, GAP = 190, 500, 90, 22, 8  # pixels


def main() -> None:
    """Draw what was given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, help="of pytest-benchmark")
    parser.add_argument("--profile", type=Path, help="of benchmarks.profile")
    parser.add_argument("--folder", type=Path, default=PICTURES)
    arguments = parser.parse_args()
    if arguments.results is not None:
        _write(step_times(json.loads(arguments.results.read_text(encoding="utf-8"))["benchmarks"]), arguments.folder)
    if arguments.profile is not None:
        found = [Profile(**entry) for entry in json.loads(arguments.profile.read_text(encoding="utf-8"))]
        _write(where_time_goes(found), arguments.folder)


def _write(picture: Picture, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{picture.name}.svg"
    path.write_text(picture.render(), encoding="utf-8")
    print(f"wrote {path}")


def step_times(benchmarks: Sequence[dict[str, Any]]) -> Picture:
    """A bar for each policy and size: the median step, in milliseconds."""
    steps = [
        (entry["extra_info"]["size"], entry["extra_info"]["policy"], 1000 * entry["stats"]["median"])
        for entry in benchmarks
        if entry["name"].startswith("test_step")
    ]
    sizes = list(dict.fromkeys(size for size, _, _ in steps))
    height = len(steps) * (BAR + GAP) + len(sizes) * 34 + 10
    picture = Picture("step-times", "Time of a step within a block, by policy", LEFT + WIDTH + ROOM, height)
    longest, y = max(taken for _, _, taken in steps), 22
    for size in sizes:
        picture.text(4, y, size, "head", anchor="start")
        y += 12
        for _, policy, taken in (step for step in steps if step[0] == size):
            width = max(WIDTH * taken / longest, 1)
            picture.text(LEFT - 10, y + BAR - 6, policy, "code", anchor="end")
            picture.box(LEFT, y, width, BAR, "fresh")
            picture.text(LEFT + width + 8, y + BAR - 6, f"{taken:.1f} ms", "soft", anchor="start")
            y += BAR + GAP
        y += 22
    return picture


def where_time_goes(found: Sequence[Profile]) -> Picture:
    """A bar for each policy and dtype, its parts side by side; shares of the step."""
    names = [part for part in PARTS if part != "tokens, confidences"]
    height = len(found) * (BAR + GAP) + 94
    picture = Picture("where-time-goes", "Where the time of a step goes, by policy", LEFT + WIDTH + ROOM, height)
    for number, each in enumerate(found):
        x, y = float(LEFT), number * (BAR + GAP) + 4
        picture.text(LEFT - 10, y + BAR - 6, f"{each.policy.split(':')[0]}, {each.dtype}", "code", anchor="end")
        for part in PARTS:
            width = WIDTH * each.parts[part] / each.total
            if width >= 1:
                picture.box(x, y, width, BAR, "fresh" if part in MATRIX else "stale", radius=0)
            if width >= 7 * len(_short(part)) + 4:
                picture.text(x + width / 2, y + BAR - 6, _short(part), "soft")
            x += width
        picture.text(x + 8, y + BAR - 6, f"{each.total:.1f} ms", "soft", anchor="start")
    y = len(found) * (BAR + GAP) + 14
    picture.legend(LEFT, y, {"fresh": "matrix work", "stale": "everything else"})
    words = ", ".join(f"{_short(part)}: {part}" for part in names if _short(part) != part)
    picture.text(LEFT, y + 40, f"From left to right: {', '.join(PARTS[:5])};", "soft", anchor="start")
    picture.text(LEFT, y + 56, f"{', '.join(PARTS[5:])}.", "soft", anchor="start")
    picture.text(LEFT, y + 72, words, "soft", anchor="start")
    return picture


def _short(part: str) -> str:
    return {"projections": "QKVO", "feed-forward": "FF", "attention": "attn", "tokens, confidences": "tokens"}.get(
        part, part
    )


if __name__ == "__main__":
    main()
