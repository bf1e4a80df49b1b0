"""The experiment of a results file, to run it again, and how far two runs agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from freshkv.compare.experiment import FIELDS, Experiment, resolve_task
from freshkv.compare.provenance import hash_model
from freshkv.compare.records import Header
from freshkv.compare.results import Results
from freshkv.compare.store import header_differences
from freshkv.core.errors import ResultsError


def experiment_of(header: Header) -> Experiment:
    """The experiment that wrote ``header``. Raises what ``fields_of`` and ``Experiment`` raise."""
    return Experiment(**fields_of(header))


def fields_of(header: Header) -> dict[str, Any]:
    """The fields of that experiment. Raises ResultsError where this version of freshkv cannot run it.

    The model is called as it was then; ``check_model`` says whether it is still the same.
    """
    facts = header.experiment
    missing = [name for name in (*_AS_WRITTEN, "gen_lengths") if name not in facts]
    if missing:
        raise ResultsError(f"The header of the results has no {', no '.join(missing)}; they cannot be run again.")
    return {
        "model": header.model,
        "gen_length": _gen_length(facts),
        "threads": header.environment.get("threads"),
        **{name: facts[name] for name in _AS_WRITTEN},
    }


def check_model(earlier: Results, experiment: Experiment) -> None:
    """Raise ResultsError, before any work, if the model of ``experiment`` is not the one that wrote ``earlier``."""
    there, here = earlier.header.experiment["model_hash"], hash_model(experiment.model)
    if there != here:
        raise ResultsError(
            f"{experiment.model} is not the model of {earlier.path}: its hash is {here[:12]}... here, and was "
            f"{there[:12]}... there. Name the right one with --model."
        )


#: fields that a header holds under their own names; the others it holds in another form
_AS_WRITTEN = tuple(name for name in FIELDS if name not in ("model", "gen_length", "threads"))


def _gen_length(facts: Mapping[str, Any]) -> int | None:
    """None where every task had its own number, as it has now; else the one number of all."""
    lengths: Mapping[str, int] = facts["gen_lengths"]
    own = {name: resolve_task(name).gen_length for name in lengths}
    if own == lengths:
        return None
    if len(set(lengths.values())) > 1:
        raise ResultsError(
            f"The results have responses of {_shown(lengths)} tokens; in this version tasks have {_shown(own)}. "
            "Run them again with the version that wrote them."
        )
    return next(iter(lengths.values()))


def _shown(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"{length} ({name})" for name, length in lengths.items())


@frozen
class Agreement:
    """How far two runs of one experiment agree."""

    sequences: int  #: in both
    same: int  #: of them, those whose every token is the same
    differences: tuple[str, ...]  #: of experiment and environment, in words


def compare_runs(first: Results, second: Results) -> Agreement:
    """Compare what two results files have in common, token by token."""
    responses = {(each.entry, each.case, each.repeat): each.response for each in first.sequences}
    pairs = [
        (responses[key], each.response)
        for each in second.sequences
        if (key := (each.entry, each.case, each.repeat)) in responses
    ]
    return Agreement(
        sequences=len(pairs),
        same=sum(one == other for one, other in pairs),
        differences=tuple(header_differences(first.header, second.header)),
    )
