"""Requests: prompts to be decoded among others, and what comes of each."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from freshkv.core.canvas import Canvas
from freshkv.core.errors import InputError
from freshkv.core.network import NetworkSpec
from freshkv.core.trace import Trace


def _token_ids(value: Any) -> tuple[int, ...]:
    """From a list, or a tensor of one axis."""
    if isinstance(value, Tensor):
        if value.ndim != 1:
            hint = " A request is one prompt: input_ids[0]." if value.ndim == 2 else ""
            raise InputError(f"input_ids has shape {tuple(value.shape)}; expected [prompt].{hint}")
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise InputError(f"input_ids has dtype {str(value.dtype).removeprefix('torch.')}; expected token ids.")
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not all(type(token) is int for token in value):
        raise InputError(f"input_ids is {value!r:.80}; expected token ids: a list, or a long tensor [prompt].")
    return tuple(value)


@frozen
class Request:
    """A prompt to be decoded. Requests that are decoded together may differ in everything that is said here.

    Raises InputError for values that no model could use.
    """

    input_ids: tuple[int, ...] = field(converter=_token_ids)  #: token ids of the prompt, without padding
    gen_length: int = field(default=128, kw_only=True)  #: response positions
    #: positions decoded before the next block opens; divides ``gen_length``. None: as for ``generate``
    block_length: int | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)  #: of its random numbers

    def __attrs_post_init__(self) -> None:
        if type(self.seed) is not int:
            raise InputError(f"seed is {self.seed!r}; expected a whole number.")

    @property
    def columns(self) -> int:
        """Of its canvas: prompt and response."""
        return len(self.input_ids) + self.gen_length

    def canvas(self, spec: NetworkSpec, device: torch.device, eos_token_id: int | None = None) -> Canvas:
        """The canvas of this request alone. Raises InputError for what a network with ``spec`` cannot decode."""
        ids = torch.tensor([self.input_ids], dtype=torch.long)  # long [1, prompt]
        return Canvas.create(ids, None, self.gen_length, self.block_length, spec, device, eos_token_id)


@frozen(kw_only=True)
class RequestStats:
    """What a request took. Passes are shared: by all requests that are decoded in them."""

    forwards: int  #: passes that it took part in
    passes: float  #: its share of them, 1/k of one with k requests; over all requests the number of passes
    rows_computed: float  #: its own rows, over all its passes, mean over layers; padding is never computed
    tokens_committed: int  #: response positions that hold a decided token at the end
    tokens_produced: int  #: response tokens up to and including the first EOS (all where none stops it)
    seconds: float  #: its share of the passes' wall-clock time, as in ``passes``
    slots: int  #: of the batch: the most requests that a pass could hold

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens a pass that the request took part in."""
        return self.tokens_committed / self.forwards if self.forwards > 0 else 0.0


@frozen(kw_only=True, eq=False)
class RequestResult:
    """A finished request. Nothing in it depends on the others but ``passes``, ``seconds`` and ``slots``."""

    index: int  #: its place among the requests, from 0
    request: Request
    sequence: Tensor  #: long [prompt + gen_length], on the model's device; masks after an EOS are filled with EOS
    stats: RequestStats
    trace: Trace | None = None  #: its own passes, as if it had been alone; where traces are kept

    @property
    def response(self) -> Tensor:
        """long [gen_length]: the sequence without the prompt."""
        return self.sequence[len(self.request.input_ids) :]
