"""Two policies on the same problems: accuracy, agreement with the uncached run, and the share of rows computed.

python examples/compare_policies.py --problems 20
"""

from __future__ import annotations

import argparse

from freshkv.compare import Experiment, describe_findings, run_experiment, summarize


def main() -> None:
    """Compare ``dual`` and ``d2cache``; the uncached run is added, because the others are measured by it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=2)
    parser.add_argument("--output", default="compare_policies.jsonl", help="where results are kept as they come")
    arguments = parser.parse_args()

    experiment = Experiment(
        tasks="weave",
        policies=("dual", "d2cache:current_k=16"),
        decoders="confidence:tokens_per_step=4",
        problems=arguments.problems,
    )
    summaries = summarize(run_experiment(experiment, arguments.output))
    for line in summaries:
        low, high = line.accuracy_interval
        agreement = "" if line.agreement is None else f"  agreement {line.agreement:.2f}"
        accuracy = f"accuracy {line.accuracy:.2f} ({low:.2f} to {high:.2f})"
        print(f"{line.policy:22} {accuracy}  rows {line.rows_share:.0%}{agreement}")
    for finding in describe_findings(summaries):
        print(finding)


if __name__ == "__main__":
    main()
