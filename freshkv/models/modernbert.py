"""ModernBERT (arXiv:2412.13663) as a masked diffusion model: Transformers' own modules behind the adapter protocol.

Every third layer is global; the others see a window, and have a rotary embedding of their own. Logits are in place.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from transformers import ModernBertConfig, ModernBertForMaskedLM

from freshkv.core.errors import CheckpointError
from freshkv.core.network import NetworkSpec
from freshkv.models.configuration import end_token, mask_token
from freshkv.models.layers import WIDTH, Rotary, rotate

KINDS = ("full_attention", "sliding_attention")


class DiffusionModernBertConfig(ModernBertConfig):  # type: ignore[no-untyped-call]
    """The fields of Transformers' own, and a mask token."""

    model_type = "modernbert"

    mask_token_id: int | None = None


class DiffusionModernBert(ModernBertForMaskedLM):  # type: ignore[no-untyped-call]
    """ModernBERT with its masked-LM head; a freshkv ``Network`` with a window in its local layers."""

    config_class = DiffusionModernBertConfig

    def __init__(self, config: DiffusionModernBertConfig) -> None:
        super().__init__(config)
        width = config.hidden_size // config.num_attention_heads
        parameters = cast("dict[str, dict[str, Any]]", config.rope_parameters)
        ropes = {kind: parameters[kind] for kind in KINDS}
        for kind, rope in ropes.items():
            if rope.get("rope_type", "default") != "default":
                raise CheckpointError(f"config: rotary embedding of {kind} is scaled, which is not implemented here.")
        self._rotaries = {kind: Rotary(width, float(rope["rope_theta"])) for kind, rope in ropes.items()}

    @cached_property
    def network_spec(self) -> NetworkSpec:
        """The numbers of this network; raises CheckpointError where the configuration lacks a mask token."""
        config = self.config
        kinds = cast("list[str]", config.layer_types)
        return NetworkSpec(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            kv_heads=config.num_attention_heads,
            head_width=config.hidden_size // config.num_attention_heads,
            width=config.hidden_size,
            feed_forward_width=config.intermediate_size,
            vocabulary=config.vocab_size,
            mask_token_id=mask_token(config, config.vocab_size),
            eos_token_id=end_token(config, config.vocab_size),
            windows=tuple(config.sliding_window if kind == "sliding_attention" else None for kind in kinds),
        )

    def embed_rows(self, tokens: Tensor) -> Tensor:
        """See ``Network.embed_rows``."""
        return cast("Tensor", self.model.embeddings(tokens))

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [rows, 2 * head_width]: those of global layers, then those of local ones."""
        tables = [self._rotaries[kind](positions, self.dtype) for kind in KINDS]
        return torch.cat([cosine for cosine, _ in tables], WIDTH), torch.cat([sine for _, sine in tables], WIDTH)

    def project(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See ``Network.project``."""
        queries, keys, values = self._split(layer, hidden)
        half = KINDS.index(cast("list[str]", self.config.layer_types)[layer])
        mine = (rotary[0].chunk(2, dim=WIDTH)[half], rotary[1].chunk(2, dim=WIDTH)[half])
        return rotate(queries, mine), rotate(keys, mine), values

    def project_values(self, layer: int, hidden: Tensor) -> Tensor:
        """See ``Network.project_values``."""
        return self._split(layer, hidden)[2]

    def attention_output(self, layer: int, attended: Tensor) -> Tensor:
        """See ``Network.attention_output``."""
        return cast("Tensor", self.model.layers[layer].attn.Wo(attended.flatten(1)))

    def feed_forward(self, layer: int, hidden: Tensor) -> Tensor:
        """See ``Network.feed_forward``."""
        block = self.model.layers[layer]
        return cast("Tensor", block.mlp(block.mlp_norm(hidden)))

    def logits(self, hidden: Tensor) -> Tensor:
        """See ``Network.logits``."""
        return cast("Tensor", self.decoder(self.head(self.model.final_norm(hidden))))

    def _split(self, layer: int, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        block = self.model.layers[layer]
        heads = self.config.num_attention_heads
        together = torch.unflatten(block.attn.Wqkv(block.attn_norm(hidden)), 1, (3, heads, -1))
        queries, keys, values = together.unbind(dim=1)
        return queries, keys, values
