"""Writes an experiment or a sweep as a file that reads as the same: every field, with a word on what it means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from freshkv.compare.experiment import FIELDS, Experiment, resolve_task
from freshkv.compare.experiment_file import NONE, SWEEP
from freshkv.compare.file_syntax import is_yaml, write_value
from freshkv.compare.sweep import LISTS, Sweep
from freshkv.core.errors import FreshkvError, InputError
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.spec import expand_spec
from freshkv.core.version import VERSION

WIDTH = 100  #: longer lists have a line for each value

COMMENTS = {
    "model": "bundled, a folder, or a hub id",
    "tasks": "by name",
    "policies": "spec strings, grids and ranges as well; none is always added",
    "decoders": "spec strings, likewise",
    "problems": "of each task, for each seed",
    "seeds": "each draws problems of its own",
    "repeats": "how often each problem is decoded, to time it better",
    "gen_length": 'response tokens; "none": the task\'s own number',
    "block_length": 'response tokens; "none": one block',
    "batch_size": "sequences decoded together",
    "temperature": "0 takes the most probable token",
    "top_k": 'tokens to sample among; "none": all',
    "top_p": 'probability to sample among; "none": all',
    "stop_at_eos": "end a response at its first end token",
    "raw_prompts": "leave out the tokenizer's chat template",
    "dtype": '"auto": as the checkpoint is stored',
    "device": "cpu, cuda, cuda:1, ...",
    "match_budget": 'a policy or a share of rows that all others are turned to; "none": as they are',
    "regret": "run an oracle and a random policy beside each policy, at its own budget",
    "threads": 'CPU threads; "none": one for the bundled models, else as torch chooses',
}


def write_experiment_file(path: str | Path, experiment: Experiment | Sweep) -> None:
    """Write TOML or YAML, by the ending of ``path``. Raises InputError for a path that exists or cannot be written.

    Policies, decoders and tasks must be known by name: InputError for one that only this script has.
    """
    path = Path(path)
    yaml = is_yaml(path)
    fields, axes = _contents(experiment)
    lines = [f"# {line}" for line in _introduction(path)]
    lines += [line for name, value in fields.items() for line in _write(name, value, yaml, "")]
    if axes:
        lines += ["", "# every combination is an experiment, with a results file of its own"]
        lines += [f"{SWEEP}:" if yaml else f"[{SWEEP}]"]
        lines += [line for name, values in axes.items() for line in _write(name, list(values), yaml, "  " * yaml)]
    if path.exists():
        raise InputError(f"{path} exists; choose another name, or remove it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}. Choose another name.") from error


def _introduction(path: Path) -> Iterator[str]:
    yield f"An experiment, written by freshkv {VERSION}. To run it: freshkv compare {path.name}"


def _contents(experiment: Experiment | Sweep) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """All fields as they are written, but for those on an axis; and the axes."""
    sweep = Sweep() if isinstance(experiment, Experiment) else experiment
    first = experiment if isinstance(experiment, Experiment) else experiment.experiments[0]
    given, axes = sweep.fields, sweep.axes
    fields = {name: getattr(first, name) for name in FIELDS if name not in axes}
    fields["tasks"] = [_check(task.name, resolve_task) for task in first.tasks]
    fields["policies"] = _specs(given.get("policies", ()), first.policies, resolve_policy)
    fields["decoders"] = _specs(given.get("decoders", ()), first.decoders, resolve_decoder)
    return fields, axes


def _specs(given: Any, objects: Iterable[Any], resolve: Any) -> list[str]:
    """What was given where it is text, so that grids stay grids; else normal forms."""
    texts = [given] if isinstance(given, str) else list(given)
    if texts and all(isinstance(text, str) for text in texts):
        return texts
    return [_check(each.spec, resolve) for each in objects]


def _check(text: str, resolve: Any) -> str:
    try:
        for spec in expand_spec(text):
            resolve(spec)
    except FreshkvError as error:
        raise InputError(f"{text!r} cannot be written to a file, because a file is read by name: {error}") from error
    return text


def _write(name: str, value: Any, yaml: bool, indent: str) -> Iterator[str]:
    if isinstance(value, list | tuple):
        value = [NONE if item is None else item for item in value]
    sign = ":" if yaml else " ="
    comment = COMMENTS.get(name, "")
    text = write_value(NONE if value is None else value)
    if len(text) <= WIDTH or not isinstance(value, list) or name not in LISTS:
        yield f"{indent}{name}{sign} {text}{'  # ' * bool(comment)}{comment}"
        return
    yield f"{indent}{name}{sign} [{'  # ' * bool(comment)}{comment}"
    yield from (f"{indent}  {write_value(item)}," for item in value)
    yield f"{indent}]"
