"""Compare all policies, built-in and from ``plugins/``, and write the table into ``docs/plugins.md``.

Takes some minutes on two cores. Stop it at any time; the same command goes on where it stopped.

python -m docs.tools.compare_all --model tiny-llada
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import freshkv
from docs.tools.generate import DOCS
from freshkv.compare import DEFAULT_POLICIES, EntrySummary, Experiment, Progress, run_experiment, summarize

PAGE = DOCS / "plugins.md"
DECODERS = ("confidence", "threshold")
BATCH_SIZE = 20  #: answers do not depend on it, and times are left out


def compared() -> list[str]:
    """The five built-in policies, then those of plugins by name."""
    own = {name for name, cls in freshkv.policies().items() if not cls.__module__.startswith("freshkv.")}
    return [*DEFAULT_POLICIES, *sorted(own)]


def tables(summaries: Sequence[EntrySummary]) -> Iterator[str]:
    """A Markdown table for each decoder: accuracy by task, and means over tasks of rows and operations."""
    tasks = list(dict.fromkeys(line.task for line in summaries))
    for decoder in dict.fromkeys(line.decoder for line in summaries):
        mine = [line for line in summaries if line.decoder == decoder]
        head = ["policy", *tasks, "points to none", "same tokens", "rows a step", "operations saved"]
        rows = [_row([line for line in mine if line.policy == policy]) for policy in _policies(mine)]
        lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
        yield f"With `{decoder}`:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _policies(summaries: Sequence[EntrySummary]) -> list[str]:
    return list(dict.fromkeys(line.policy for line in summaries))


def _row(lines: Sequence[EntrySummary]) -> list[str]:
    """One policy, a summary for each task."""
    differences = [100 * line.paired.difference for line in lines if line.paired is not None]
    marks = ["*" if line.is_significant else "" for line in lines]
    return [
        f"`{lines[0].policy}`",
        *(f"{_share(line.accuracy)}{mark}" for line, mark in zip(lines, marks, strict=True)),
        f"{sum(differences) / len(differences):+.0f}" if differences else "",
        _mean_share([line.agreement for line in lines]),
        _mean_share([line.rows_share for line in lines]),
        _mean_ratio([line.flops_speedup for line in lines]),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _mean_share(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.0%}" if known else ""


def _mean_ratio(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.1f}x" if known else ""


def write(model: str, text: str) -> None:
    """Put ``text`` between the markers of ``model`` in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(f"<!-- measured: {model} -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not found or not end:
        raise SystemExit(f"{PAGE.name} has no place for {model}: expected '<!-- measured: {model} -->' and an end.")
    PAGE.write_text(f"{before}{found}\n{text}\n\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Run, or go on with, the comparison, and write its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-llada")
    parser.add_argument("--problems", type=int, default=40, help="of each task")
    parser.add_argument("--output", type=Path, help="where results are kept as they come")
    arguments = parser.parse_args()
    output = arguments.output or Path("results") / f"all-policies-{arguments.model}.jsonl"
    output.parent.mkdir(exist_ok=True)
    experiment = Experiment(
        model=arguments.model,
        policies=compared(),
        decoders=DECODERS,
        problems=arguments.problems,
        batch_size=BATCH_SIZE,
    )
    results = run_experiment(experiment, output, on_progress=_show)
    write(arguments.model, f"{arguments.problems} problems a task.\n\n" + "\n\n".join(tables(summarize(results))))


def _show(progress: Progress) -> None:
    if progress.done % 20 == 0:
        print(f"{progress.done} of {progress.total}", flush=True)


if __name__ == "__main__":
    main()
