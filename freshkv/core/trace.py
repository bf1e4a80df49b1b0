"""The immutable record of a run: what happened in each forward pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, overload

import torch
from attrs import field, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from freshkv.core.errors import ResultsError

_FORMAT = "freshkv-trace-2"


@frozen(kw_only=True, eq=False)
class StepRecord:
    """One forward pass and what was committed after it. Tensors are ``[batch, seq]``, on the CPU.

    Sequences that had finished before hold their final tokens and take no part in anything else.
    """

    tokens: Tensor  #: long; after the step
    committed: Tensor  #: bool
    remasked: Tensor  #: bool; positions that a revocable decoder masked again
    refreshed: Tensor  #: bool; rows refreshed in any layer
    #: bool; rows that the core refreshed besides those that the policy named: in the first step all others, later what
    #: the sequence needed to go on. A layer-wise policy names none in the first step, and nothing is marked
    added: Tensor
    predicted: Tensor  #: bool; positions whose logits were computed
    keys: Tensor  #: long [batch, layers], or [batch, 1] where all layers are alike; keys that a row could attend to
    confidence: Tensor  #: float32; last known confidence of each position, -inf if never predicted
    active: Tensor  #: bool [batch]; the sequence took part in this pass
    rows_by_layer: tuple[int, ...]  #: rows that went through each layer, all sequences together, shadow rows too
    shadow_rows: int = 0  #: of them, those that verify for a revocable decoder
    probed_by_layer: tuple[int, ...] = ()  #: rows whose values alone were computed first; empty: none
    watched_by_layer: tuple[int, ...] = ()  #: rows whose attention was compared with that of the pass before
    refreshed_by_layer: Tensor | None = field(
        default=None
    )  #: bool [layers, batch, seq]; None: all layers as ``refreshed``

    @property
    def rows_computed(self) -> int:
        """Rows that went through a layer: the sum over layers divided by their number, rounded down."""
        return sum(self.rows_by_layer) // len(self.rows_by_layer)

    def layer(self, layer: int) -> Tensor:
        """bool [batch, seq]: the rows refreshed in this layer."""
        return self.refreshed if self.refreshed_by_layer is None else self.refreshed_by_layer[layer]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as JSON holds them (confidences that are not finite become None)."""
        by_layer = self.refreshed_by_layer
        confidence = [
            [value if abs(value) < float("inf") else None for value in row] for row in self.confidence.tolist()
        ]
        return {
            **{name: getattr(self, name).tolist() for name in RECORDED if name != "confidence"},
            "confidence": confidence,
            "rows_by_layer": list(self.rows_by_layer),
            "shadow_rows": self.shadow_rows,
            "probed_by_layer": list(self.probed_by_layer),
            "watched_by_layer": list(self.watched_by_layer),
            "rows_computed": self.rows_computed,
            "refreshed_by_layer": None if by_layer is None else by_layer.tolist(),
        }


#: the tensors of a record, [batch, ...]
RECORDED = ("tokens", "committed", "remasked", "refreshed", "added", "predicted", "keys", "confidence", "active")
#: and one that is there where layers differ
BY_LAYER = "refreshed_by_layer"
_COUNTS = ("rows_by_layer", "shadow_rows", "probed_by_layer", "watched_by_layer")


@frozen(eq=False)
class Trace(Sequence[StepRecord]):
    """The steps of a run in order; ``len(trace)`` is the number of forward passes."""

    steps: tuple[StepRecord, ...]
    prompt_length: int  #: columns left of the response, padding included
    mask_token_id: int
    facts: Mapping[str, Any] = field(factory=dict)  #: what is needed to run it again; JSON values

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[StepRecord]:
        return iter(self.steps)

    @overload
    def __getitem__(self, index: int) -> StepRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StepRecord]: ...
    def __getitem__(self, index: int | slice) -> StepRecord | Sequence[StepRecord]:
        return self.steps[index]

    def to_dict(self) -> dict[str, Any]:
        """The whole trace as plain lists and numbers."""
        return {
            "format": _FORMAT,
            "prompt_length": self.prompt_length,
            "mask_token_id": self.mask_token_id,
            "facts": dict(self.facts),
            "steps": [step.to_dict() for step in self.steps],
        }

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; it is complete or not there at all. Raises ResultsError if that fails."""
        path = Path(path)
        tensors: dict[str, Tensor] = {}
        for number, step in enumerate(self.steps):
            tensors |= {f"{number}.{name}": getattr(step, name).contiguous() for name in RECORDED}
            if step.refreshed_by_layer is not None:
                tensors[f"{number}.refreshed_by_layer"] = step.refreshed_by_layer.contiguous()
        header = {
            "format": _FORMAT,
            "prompt_length": self.prompt_length,
            "mask_token_id": self.mask_token_id,
            "facts": dict(self.facts),
            "counts": [{name: getattr(step, name) for name in _COUNTS} for step in self.steps],
        }
        partial = path.with_name(path.name + ".partial")
        try:
            save_file(tensors, partial, metadata={"freshkv": json.dumps(header)})
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):  # where a folder of the path is a file
                partial.unlink(missing_ok=True)
            raise ResultsError(f"Cannot write the trace to {path}: {error}. Choose another folder.") from error

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read what ``save`` wrote. Raises ResultsError for a file that is missing, damaged or something else."""
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("freshkv", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise ResultsError(f"Cannot read a trace from {path}: {error}.") from error
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise ResultsError(f"{path} is not a trace of this version (expected {_FORMAT}).")
        try:
            steps = tuple(_read_step(tensors, number, counts) for number, counts in enumerate(header["counts"]))
            return cls(steps, header["prompt_length"], header["mask_token_id"], dict(header["facts"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{path} is a damaged trace: {type(error).__name__} {error}.") from error

    @property
    def committed_at(self) -> Tensor:
        """long [batch, seq]: the last step in which a position was committed, -1 if never or masked again."""
        when = torch.full_like(self.steps[0].tokens, -1) if self.steps else torch.empty(0, dtype=torch.long)
        for number, step in enumerate(self.steps):
            when = when.masked_fill(step.remasked, -1).masked_fill(step.committed, number)
        return when


def _read_step(tensors: Mapping[str, Tensor], number: int, counts: Mapping[str, Any]) -> StepRecord:
    values = {name: tensors[f"{number}.{name}"] for name in RECORDED}
    return StepRecord(
        **values,
        rows_by_layer=tuple(counts["rows_by_layer"]),
        shadow_rows=counts["shadow_rows"],
        probed_by_layer=tuple(counts["probed_by_layer"]),
        watched_by_layer=tuple(counts["watched_by_layer"]),
        refreshed_by_layer=tensors.get(f"{number}.refreshed_by_layer"),
    )
