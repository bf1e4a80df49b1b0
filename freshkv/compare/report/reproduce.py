"""What is needed to run an experiment again: an experiment file, and every fact of the results' header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from freshkv.compare.experiment_file import NONE
from freshkv.compare.file_syntax import write_value
from freshkv.compare.records import Header
from freshkv.compare.report.sources import Source

#: facts of a header that an experiment file holds under the same name
_FIELDS = (
    "tasks", "policies", "decoders", "problems", "seeds", "repeats", "block_length", "batch_size", "temperature",
    "top_k", "top_p", "stop_at_eos", "raw_prompts", "dtype", "device", "match_budget", "regret",
)  # fmt: skip


def reproduce(source: Source) -> dict[str, Any]:
    """The experiment of a source as the page shows it."""
    header = source.results.header
    facts = {"results file": source.results.path.name, "created": header.created, "model": header.model}
    return {
        "name": source.name,
        "file": experiment_file(header),
        "facts": [*facts.items(), *_flat(header.experiment, ""), *_flat(header.environment, "")],
    }


def experiment_file(header: Header) -> str:
    """A TOML file that describes the same experiment; ``freshkv compare FILE`` runs it."""
    facts = header.experiment
    lengths = set(facts["gen_lengths"].values())
    fields = {
        "model": header.model,
        **{name: facts[name] for name in _FIELDS if name in facts},
        # where tasks differ, each has its own number
        "gen_length": lengths.pop() if len(lengths) == 1 else None,
        "threads": header.environment["threads"],
    }
    return "".join(f"{name} = {write_value(NONE if value is None else value)}\n" for name, value in fields.items())


def _flat(facts: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Names and values as text, one level."""
    for name, value in facts.items():
        words = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield words, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
