"""Where the experiment of ``freshkv compare`` comes from: options, a file, or earlier results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from attrs import frozen

from freshkv.core.errors import InputError

if TYPE_CHECKING:
    from freshkv.compare.results import Results
    from freshkv.compare.sweep import Sweep

#: options that are not called as the field of the experiment that they set
FIELD_OF = {"task": "tasks", "policy": "policies", "decoder": "decoders", "seed": "seeds", "raw": "raw_prompts"}
#: what may be other than it was where earlier results are run again: where the model is, and what it runs on
MOVABLE = ("model", "device", "threads")
ON_COMMAND_LINE = "COMMANDLINE"


@frozen(kw_only=True)
class Plan:
    """What is to be run, and where its results go."""

    sweep: Sweep
    output: Path | None  #: a file; of a sweep with axes a folder; None: a name of the experiment's own
    earlier: Results | None = None  #: the results that are run again


def make_plan(
    context: typer.Context,
    fields: Mapping[str, Any],
    *,
    file: Path | None,
    like: Path | None,
    resume: Path | None,
    output: Path | None,
) -> Plan:
    """The plan of a command line; ``fields`` are those of its options, with the defaults of those left out.

    What is given on the command line replaces what a file says. Raises InputError for options that exclude each other.
    """
    from freshkv.compare.experiment_file import read_experiment_file
    from freshkv.compare.sweep import Sweep

    sources = {"an experiment file": file, "--like": like, "--resume": resume}
    chosen = [name for name, path in sources.items() if path is not None]
    if len(chosen) > 1:
        raise InputError(f"{' and '.join(chosen)} exclude each other; each says what to run. Leave out all but one.")
    if like is not None:
        return _plan_again(like, _given(context), output)
    if resume is not None:
        return _plan_resumed(resume, _given(context), output)
    if file is not None:
        sweep = read_experiment_file(file, _given(context))
        return Plan(sweep=sweep, output=Path("results") / file.stem if sweep.axes and output is None else output)
    return Plan(sweep=Sweep(fields=fields), output=output)


def _given(context: typer.Context) -> dict[str, Any]:
    """Fields of the experiment that the command line names."""
    from freshkv.compare.experiment import FIELDS

    named = {FIELD_OF.get(name, name): (name, value) for name, value in context.params.items()}
    sources = {field: context.get_parameter_source(name) for field, (name, _) in named.items()}
    return {
        field: value
        for field, (_, value) in named.items()
        if field in FIELDS and getattr(sources[field], "name", "") == ON_COMMAND_LINE
    }


def _plan_again(path: Path, given: Mapping[str, Any], output: Path | None) -> Plan:
    from freshkv.compare.rerun import check_model

    earlier, sweep = _read_earlier(path, given, "--like")
    check_model(earlier, sweep.experiments[0])
    output = path.with_name(f"{path.stem}-again{path.suffix}") if output is None else output
    return Plan(sweep=sweep, output=output, earlier=earlier)


def _plan_resumed(path: Path, given: Mapping[str, Any], output: Path | None) -> Plan:
    if output is not None:
        raise InputError("--resume continues the file that it names; leave out --output.")
    _, sweep = _read_earlier(path, given, "--resume")
    return Plan(sweep=sweep, output=path)


def _read_earlier(path: Path, given: Mapping[str, Any], option: str) -> tuple[Results, Sweep]:
    from freshkv.compare import read_results
    from freshkv.compare.rerun import fields_of
    from freshkv.compare.sweep import Sweep

    names = {field: name for name, field in FIELD_OF.items()}
    extra = [f"--{names.get(field, field).replace('_', '-')}" for field in given if field not in MOVABLE]
    if extra:
        raise InputError(f"{option} runs what {path} says; leave out {', '.join(extra)}.")
    earlier = read_results(path)
    return earlier, Sweep(fields=fields_of(earlier.header) | dict(given))
