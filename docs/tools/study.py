"""The numbers of docs/study.md: ``python -m docs.tools.study results/study/*.jsonl`` keeps those that the page shows.

The tables of the page are written from them by ``docs.tools.generate``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from freshkv.compare import EntrySummary, read_results, summarize

NUMBERS = Path(__file__).parents[1] / "study" / "numbers.json"
SIGNIFICANT = 0.05


def keep(paths: Sequence[Path]) -> None:
    """Write what the tables need of some results files."""
    rows = [
        {"model": results.header.model} | _row(summary)
        for results in map(read_results, paths)
        for summary in summarize(results)
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    NUMBERS.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _row(summary: EntrySummary) -> dict[str, Any]:
    if summary.forwards is None or summary.rows_share is None:
        raise SystemExit(f"{summary.policy} with {summary.decoder} has no results on {summary.task}")
    return {
        "task": summary.task,
        "decoder": summary.decoder,
        "policy": summary.policy,
        "problems": summary.sequences,
        "accuracy": summary.accuracy,
        "corrected_p": summary.corrected_p,
        "passes": round(summary.forwards * summary.rows_share, 3),
        "forwards": round(summary.forwards, 3),
    }


def tables() -> str:
    """For each model and decoder, accuracy and cost of every policy on every task."""
    rows = json.loads(NUMBERS.read_text(encoding="utf-8"))
    parts = []
    for (model, decoder), of_setting in groupby(sorted(rows, key=_setting), key=_setting):
        cells = {(row["policy"], row["task"]): row for row in of_setting}
        tasks = list(dict.fromkeys(task for _, task in cells))
        lines = [
            "| policy | " + " | ".join(f"{task} | passes" for task in tasks) + " |",
            "|---|" + "--:|--:|" * len(tasks),
        ]
        for policy in dict.fromkeys(policy for policy, _ in cells):
            shown = " | ".join(
                f"{_accuracy(cells[policy, task])} | {cells[policy, task]['passes']:.1f}" for task in tasks
            )
            lines.append(f"| `{policy}` | {shown} |")
        parts.append(f"### {model}, {decoder}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _setting(row: dict[str, Any]) -> tuple[str, str]:
    return row["model"], row["decoder"]


def _accuracy(row: dict[str, Any]) -> str:
    p = row["corrected_p"]
    return f"**{row['accuracy']:.2f}**" if p is not None and p < SIGNIFICANT else f"{row['accuracy']:.2f}"


if __name__ == "__main__":
    keep([Path(name) for name in sys.argv[1:]])
