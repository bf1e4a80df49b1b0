"""What the page says in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freshkv.compare.findings import describe_findings
from freshkv.compare.guards import check_fairness
from freshkv.compare.regret import describe_regret, measure_regret
from freshkv.compare.report.sources import Source


def describe(source: Source) -> dict[str, Any]:
    """A source's summary: what was compared, what is significant and what is not, what to be careful about."""
    return {
        "name": source.name,
        "what": what_was_compared(source),
        "findings": [*describe_findings(source.summaries), *describe_regret(measure_regret(source.results))],
        "guards": list(map(str, check_fairness(source.results))),
    }


def doubts_together(sources: Sequence[Source]) -> list[str]:
    """What several files, shown together, leave in doubt beyond each of them."""
    if len(sources) < 2:
        return []
    every = [source.results for source in sources]
    alone = {warning for results in every for warning in check_fairness(results)}
    return [str(warning) for warning in check_fairness(*every) if warning not in alone]


def what_was_compared(source: Source) -> str:
    """One sentence."""
    header = source.results.header
    experiment, environment = header.experiment, header.environment
    problems = experiment["problems"] * len(experiment["seeds"])
    blocks = "one block" if experiment["block_length"] is None else f"blocks of {experiment['block_length']} tokens"
    decoders = ", ".join(source.decoders)
    return (
        f"{header.model}, decoded by {decoders}; {problems} problem{'s' * (problems != 1)} of each task, {blocks}, "
        f"batches of {experiment['batch_size']}, {experiment['dtype']} on {environment['device']} "
        f"(threads: {environment['threads']}), freshkv {environment['freshkv']}, torch {environment['torch']}."
    )
