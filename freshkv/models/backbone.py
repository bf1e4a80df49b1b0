"""What all Llama-like families share: the adapter protocol on packed rows, and the plain uncached forward pass.

A family adds a configuration, modules under the names of its checkpoints, and the handful of accessors below;
``dream.py`` is an example from end to end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from freshkv.core.distribution import LogitSummary
from freshkv.core.division import Division
from freshkv.core.errors import InputError
from freshkv.core.kept_attention import FewRowsAttention
from freshkv.core.network import NetworkSpec
from freshkv.core.pattern import AttentionPattern
from freshkv.models.compiled import CompiledAttention, summarise
from freshkv.models.layers import Layer, Rotary, attention
from freshkv.models.prepacked import CanBeCompiled
from freshkv.models.tensor_parallel import division_among

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

SEQ = 1


class LlamaLikeModel(PreTrainedModel, CanBeCompiled):  # type: ignore[no-untyped-call]
    """A masked diffusion language model of pre-norm layers with rotary embedding: a ``Network`` of freshkv.

    Weights are those of a Transformers model: ``from_pretrained``, ``save_pretrained``, ``state_dict`` and
    training work as usual. Nothing here knows about caches.
    """

    main_input_name = "input_ids"
    _supports_sdpa = True

    # What a family provides, besides its constructor

    rotary_embedding: Rotary

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)

    @property
    @abstractmethod
    def network_spec(self) -> NetworkSpec:
        """The numbers of this network; raises CheckpointError where the configuration lacks a mask token."""

    @property
    @abstractmethod
    def embedding(self) -> nn.Embedding:
        """The token embedding, weight [vocabulary, width]."""

    @property
    @abstractmethod
    def layers(self) -> Sequence[Layer]:
        """The transformer layers, first to last."""

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module:
        """The norm before the output head."""

    @property
    @abstractmethod
    def head(self) -> nn.Linear:
        """The output head, weight [vocabulary, width]."""

    # The adapter protocol

    @property
    def division(self) -> Division:
        """How the heads are divided among processes; not at all, unless the weights were read with tensor parallel."""
        return division_among(self.tp_size, self._device_mesh)

    @property
    def few_rows_attention(self) -> FewRowsAttention | None:
        """Attention compiled for this machine, if the model was prepacked so."""
        return CompiledAttention() if self.compiled else None

    @property
    def logit_summary(self) -> LogitSummary | None:
        """Summing up logits, compiled for this machine, if the model was prepacked so."""
        return summarise if self.compiled else None

    def embed_rows(self, tokens: Tensor) -> Tensor:
        """Token ids, long [rows], to hidden states [rows, width]."""
        return cast("Tensor", self.embedding(tokens))

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [rows, head_width] at ``positions``, long [rows]; float32, float64 in a float64 network."""
        return cast("tuple[Tensor, Tensor]", self.rotary_embedding(positions, self.dtype))

    def project(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Attention norm and projections of ``hidden`` [rows, width].

        Returns queries [rows, heads, head_width], keys and values [rows, kv_heads, head_width]; rotary embedding is
        already applied to queries and keys.
        """
        return self.layers[layer].project(hidden, rotary)

    def project_values(self, layer: int, hidden: Tensor) -> Tensor:
        """The values alone, [rows, kv_heads, head_width], equal to the third result of ``project``."""
        return self.layers[layer].project_values(hidden)

    def attention_output(self, layer: int, attended: Tensor) -> Tensor:
        """The output projection of ``attended`` [rows, heads, head_width]: what attention adds, [rows, width]."""
        return self.layers[layer].attention_output(attended)

    def feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
        """Feed-forward norm and network: what it adds to ``hidden`` [rows, width], [rows, width]."""
        return self.layers[layer].feed_forward(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Final norm and output head of ``hidden`` [rows, width]: [rows, vocabulary], not shifted."""
        return cast("Tensor", self.head(self.final_norm(hidden)))

    # The plain forward pass

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> MaskedLMOutput:
        """Logits [batch, seq, vocabulary] of ``input_ids``, long [batch, seq]; every token attends to every token, or
        to those that the network's attention pattern lets it see.

        ``attention_mask``, bool or 0/1 [batch, seq], is false at padding: padding is not attended to and takes no
        position, and the logits of its rows mean nothing. Logits are as the network gives them: where
        ``network_spec.logits_shift`` is 1, row i predicts token i + 1. Raises InputError for other shapes.
        """
        valid = _valid_tokens(input_ids, attention_mask)
        packed = self._packed_forward(
            input_ids.flatten(), _positions(input_ids, valid).flatten(), input_ids.shape, valid
        )
        return MaskedLMOutput(logits=torch.unflatten(packed, 0, input_ids.shape))

    def _packed_forward(self, tokens: Tensor, positions: Tensor, canvas: torch.Size, valid: Tensor | None) -> Tensor:
        hidden = self.embed_rows(tokens)
        rotary = self.rotary(positions)
        for layer in range(len(self.layers)):
            projected = self.project(layer, hidden, rotary)
            queries, keys, values = (torch.unflatten(heads, 0, canvas) for heads in projected)
            attended = attention(queries, keys, values, self._seen(layer, positions.view(canvas), valid)).flatten(0, 1)
            hidden = hidden + self.attention_output(layer, attended)
            hidden = hidden + self.feed_forward(layer, hidden)
        return self.logits(hidden)

    def _seen(self, layer: int, positions: Tensor, valid: Tensor | None) -> Tensor | None:
        """What may be attended to: bool [batch, seq], or [batch, seq, seq] for a pattern; None: everything."""
        block: int | None = getattr(self.config, "block_causal", None)
        if block is None:
            return valid
        pattern = AttentionPattern(block, (None,) * len(self.layers))
        seen = cast("Tensor", pattern.sees(layer, positions[:, :, None], positions[:, None, :]))
        # padding counts as the first token, so that its rows see something, too
        return seen if valid is None else seen & valid[:, None, :]

    # What Transformers asks for

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.embedding

    def get_output_embeddings(self) -> nn.Module:
        """The output head."""
        return self.head


def _valid_tokens(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor | None:
    """``attention_mask`` as bool [batch, seq], None when every token is valid by definition."""
    if input_ids.dim() != 2:
        raise InputError(f"input_ids has shape {tuple(input_ids.shape)}; expected [batch, seq]. One prompt is batch 1.")
    if attention_mask is None:
        return None
    if attention_mask.shape != input_ids.shape:
        raise InputError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; expected that of input_ids, "
            f"{tuple(input_ids.shape)}, with 0 or False at padding."
        )
    return attention_mask.to(device=input_ids.device, dtype=torch.bool)


def _positions(input_ids: Tensor, valid: Tensor | None) -> Tensor:
    """Position of each token among the valid ones of its sequence, long [batch, seq]; padding shifts nothing."""
    if valid is None:
        return torch.arange(input_ids.shape[SEQ], device=input_ids.device).expand_as(input_ids)
    return (valid.cumsum(dim=SEQ) - 1).clamp(min=0)
