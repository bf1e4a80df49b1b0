"""Tasks of lm-eval's own form, with data in local files."""

from __future__ import annotations

import json
from pathlib import Path

GENERATE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs:
{arguments}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: choices
doc_to_target: right
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""

ROLLING = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{prompt}}}}"
metric_list:
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
metadata: {{version: 1.0}}
"""


def write_task(folder: Path, name: str, template: str, rows: list[dict], **arguments) -> Path:
    """A task file and its data; ``arguments`` are those of generation."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = [f"  {key}: {json.dumps(value)}" for key, value in {"until": [], **arguments}.items()]
    text = template.format(name=name, data=data, cache=folder / "cache", arguments="\n".join(lines))
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def answers(problems) -> list[dict]:
    """Rows of a task that generates."""
    return [{"prompt": problem.prompt, "answer": problem.answer} for problem in problems]
