"""What the core needs of a model: seven functions on packed rows, and a few numbers.

A *row* is one position of one sequence. The core decides which rows flow through which layer, keeps their
keys and values, and runs attention; the network only knows its weights. Every method takes packed rows: the
leading axis counts rows of any sequences in any order, so that a network needs to know nothing about batches,
padding or caches.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from attrs import field, frozen
from attrs.validators import deep_iterable, ge, in_, instance_of, optional
from torch import Tensor


@frozen(kw_only=True)
class NetworkSpec:
    """The numbers of a network that the core works with. All are counts or token ids."""

    layers: int = field(validator=[instance_of(int), ge(1)])
    heads: int = field(validator=[instance_of(int), ge(1)])  #: query heads
    kv_heads: int = field(validator=[instance_of(int), ge(1)])  #: key and value heads; divides ``heads``
    head_width: int = field(validator=[instance_of(int), ge(1)])  #: elements of one head
    width: int = field(validator=[instance_of(int), ge(1)])  #: elements of a hidden state
    feed_forward_width: int = field(validator=[instance_of(int), ge(1)])
    vocabulary: int = field(validator=[instance_of(int), ge(2)])  #: rows of the output head
    mask_token_id: int = field(validator=[instance_of(int), ge(0)])
    #: of width x feed_forward_width, that a row goes through: 3 where the feed-forward network is gated
    feed_forward_matrices: int = field(default=3, validator=[instance_of(int), ge(1)])
    eos_token_id: int | None = field(default=None, validator=optional([instance_of(int), ge(0)]))
    #: position i is predicted by row i - logits_shift (LLaDA 0, Dream 1)
    logits_shift: int = field(default=0, validator=in_((0, 1)))
    #: positions of a block, counted from the first token; a row sees its own block and those before. None: sees all
    block_causal: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    #: for each layer, how many positions away a row sees, or None: any number. Empty: any number in all layers
    windows: tuple[int | None, ...] = field(default=(), validator=deep_iterable(optional([instance_of(int), ge(0)])))

    def __attrs_post_init__(self) -> None:
        """Raise ValueError if some layers have a window and others are not named."""
        if self.windows and len(self.windows) != self.layers:
            raise ValueError(f"windows has {len(self.windows)} layers; expected {self.layers}, or none.")


@runtime_checkable
class Network(Protocol):
    """The adapter protocol: implement this and every policy and decoder runs on your model.

    ``dtype`` is that of hidden states and caches; ``device`` where the weights are. A network whose heads are divided
    among processes also has an attribute ``division`` (see ``freshkv.core.division``); ``heads`` and ``kv_heads`` below
    are then those of this process. One with attention of its own for few rows has it as ``few_rows_attention`` (see
    ``freshkv.core.kept_attention``), and one that sums up logits itself as ``logit_summary`` (see
    ``freshkv.core.distribution``).
    """

    @property
    def network_spec(self) -> NetworkSpec:
        """The network's numbers."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of hidden states, keys and values."""
        ...

    def embed_rows(self, tokens: Tensor) -> Tensor:
        """Token ids, long [rows], to hidden states [rows, width]."""
        ...

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [rows, head_width] of rotary embedding at ``positions``, long [rows] (0: first token)."""
        ...

    def project(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Attention norm and projections of ``hidden`` [rows, width].

        Returns queries [rows, heads, head_width], keys and values [rows, kv_heads, head_width]; rotary embedding is
        already applied to queries and keys.
        """
        ...

    def project_values(self, layer: int, hidden: Tensor) -> Tensor:
        """The values alone, [rows, kv_heads, head_width], equal to the third result of ``project``."""
        ...

    def attention_output(self, layer: int, attended: Tensor) -> Tensor:
        """The output projection of ``attended`` [rows, heads, head_width]: what attention adds, [rows, width]."""
        ...

    def feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
        """Feed-forward norm and network: what it adds to ``hidden`` [rows, width], [rows, width]."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and output head of ``hidden`` [rows, width]: [rows, vocabulary], not shifted.

        The core may overwrite the result: return a tensor of your own making.
        """
        ...
