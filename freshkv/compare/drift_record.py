"""``Drift``: how far a run's caches, hidden states and predictions were from the uncached forward, and its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import field, frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from freshkv.compare.drift_summary import DriftSummary, summarize_drift
from freshkv.core.errors import ResultsError

_FORMAT = "freshkv-drift-1"

#: what a position is when a step begins; ``Drift.region`` holds their places in this tuple. ``block``: masks of the
#: active block, ``suffix``: all other masks
REGIONS = ("padding", "prompt", "decided", "block", "suffix")


@frozen(kw_only=True, eq=False)
class Drift:
    """One sequence, decoded with a policy, beside the uncached forward on the same canvas in every step.

    All is measured after the step's forward pass and before its commit, so that rows refreshed in layer 0 have no drift
    there. Cached keys, values and hidden states are compared as vectors of all heads: ``*_cosine`` is 1 - cosine to the
    true one, from 0 to 2; ``*_norm`` the norm of the difference over that of the true one. The hidden state of a layer
    is what a row leaves that layer with. On the narrow path a row that is reused keeps the one of its last refresh,
    which later layers never see; on the carried path all rows have one of this step.

    Tensors are on the CPU. Padding is NaN or False.
    """

    policy: str  #: spec string
    decoder: str  #: spec string
    prompt_length: int  #: columns left of the response, padding included
    keys_cosine: Tensor  #: float32 [steps, layers, seq]
    values_cosine: Tensor  #: float32 [steps, layers, seq]
    hidden_cosine: Tensor  #: float32 [steps, layers, seq]
    keys_norm: Tensor  #: float32 [steps, layers, seq]
    values_norm: Tensor  #: float32 [steps, layers, seq]
    hidden_norm: Tensor  #: float32 [steps, layers, seq]
    kl: Tensor  #: float32 [steps, seq]; KL(uncached || run) of predicted distributions, nats; NaN where not predicted
    top1: Tensor  #: float32 [steps, seq]; 1 where both have the same most probable token, 0 where not, NaN likewise
    confidence: Tensor  #: float32 [steps, seq]; the decoder's score of the proposed token, NaN likewise
    refreshed: Tensor  #: bool [steps, layers, seq]
    committed: Tensor  #: bool [steps, seq]
    committed_wrong: Tensor  #: bool [steps, seq]; committed, and not the uncached forward's most probable token
    region: Tensor  #: uint8 [steps, seq]; place in ``REGIONS`` when the step begins
    tokens: Tensor  #: long [steps, seq]; after the step
    uncached_tokens: Tensor  #: long [steps of that run, seq]; the same of an independent uncached run
    #: what is needed to measure it again, besides the model; JSON values
    facts: Mapping[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        steps, layers, seq = self.keys_cosine.shape
        for name in TENSORS:
            expected: tuple[int, ...] = (steps, layers, seq) if name in _LAYERED else (steps, seq)
            if name == "uncached_tokens":
                expected = (len(self.uncached_tokens), seq)
            if tuple(getattr(self, name).shape) != expected:
                raise ValueError(f"{name} is {tuple(getattr(self, name).shape)}; expected {expected}")

    @property
    def steps(self) -> int:
        """Forward passes."""
        return self.keys_cosine.shape[0]

    @property
    def layers(self) -> int:
        """Layers of the network."""
        return self.keys_cosine.shape[1]

    @property
    def seq(self) -> int:
        """Columns of the canvas."""
        return self.keys_cosine.shape[2]

    @property
    def parted_at(self) -> int | None:
        """First step, from 0, after which the canvas is not that of the independent uncached run; None: never."""
        shared = min(self.steps, len(self.uncached_tokens))
        same = (self.tokens[:shared] == self.uncached_tokens[:shared]).all(dim=1)
        # canvases that are the same to the end of one run are decided: the other ends there, too
        return None if bool(same.all()) else int((~same).long().argmax())

    @property
    def response_differs(self) -> int:
        """Response positions whose final token is not that of the independent uncached run."""
        return int((self.tokens[-1] != self.uncached_tokens[-1]).sum())

    def is_region(self, name: str) -> Tensor:
        """bool [steps, seq]: positions in one of ``REGIONS``."""
        return self.region == REGIONS.index(name)

    def summary(self) -> DriftSummary:
        """Means by layer, region and age, and what reached the tokens."""
        return summarize_drift(self, REGIONS[1:])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; it is complete or not there at all. Raises ResultsError if that fails."""
        path = Path(path)
        others = ("policy", "decoder", "prompt_length")
        header = {"format": _FORMAT, "facts": dict(self.facts), **{name: getattr(self, name) for name in others}}
        partial = path.with_name(path.name + ".partial")
        try:
            tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
            save_file(tensors, partial, metadata={"freshkv": json.dumps(header)})
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):  # where a folder of the path is a file
                partial.unlink(missing_ok=True)
            raise ResultsError(f"Cannot write the drift to {path}: {error}. Choose another folder.") from error

    @classmethod
    def load(cls, path: str | Path) -> Drift:
        """Read what ``save`` wrote. Raises ResultsError for a file that is missing, damaged or something else."""
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("freshkv", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise ResultsError(f"Cannot read a drift from {path}: {error}.") from error
        if not isinstance(header, dict) or header.pop("format", None) != _FORMAT:
            raise ResultsError(f"{path} is not a drift of this version (expected {_FORMAT}).")
        try:
            return cls(**header, **tensors)
        except (TypeError, ValueError) as error:
            raise ResultsError(f"{path} is a damaged drift: {type(error).__name__} {error}.") from error


TENSORS = tuple(each.name for each in attrs.fields(Drift) if str(each.type) == "Tensor")
_LAYERED = frozenset(name for name in TENSORS if name.endswith(("_cosine", "_norm", "refreshed")))


def regions(tokens: Tensor, is_masked: Tensor, in_block: Tensor, is_valid: Tensor, prompt_length: int) -> Tensor:
    """uint8 of the shape of the masks, [..., seq]: the place of each position in ``REGIONS``."""
    is_prompt = torch.arange(tokens.shape[-1], device=tokens.device) < prompt_length
    place = torch.full_like(tokens, REGIONS.index("decided"), dtype=torch.uint8)
    place = place.masked_fill(is_masked, REGIONS.index("suffix"))
    place = place.masked_fill(is_masked & in_block, REGIONS.index("block"))
    place = place.masked_fill(is_prompt, REGIONS.index("prompt"))
    return place.masked_fill(~is_valid, REGIONS.index("padding"))
