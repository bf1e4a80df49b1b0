"""The training forward pass: plain attention over whole canvases, which compiles to faster code than a fused kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from freshkv.models.backbone import LlamaLikeModel
from training.batches import Batch


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> Tensor:
    """``queries`` [batch, seq, heads, head_width], ``bias`` float32 [batch, 1, seq, seq]; the same shape as queries."""
    shared_by = queries.shape[2] // keys.shape[2]
    if shared_by > 1:
        keys, values = (heads.repeat_interleave(shared_by, dim=2) for heads in (keys, values))
    queries, keys, values = (heads.transpose(1, 2) for heads in (queries, keys, values))
    scores = (queries @ keys.mT).float() * queries.shape[-1] ** -0.5 + bias
    return (scores.softmax(dim=-1).to(values.dtype) @ values).transpose(1, 2)


def masked_losses(model: LlamaLikeModel, batch: Batch) -> Tensor:
    """Weighted cross-entropy of the masked response positions, float32 [batch]."""
    canvas = batch.tokens.shape
    length, shift = batch.answers.shape[1], model.network_spec.logits_shift
    rotary = model.rotary(torch.arange(canvas[1]).repeat(canvas[0]))
    hidden = model.embed_rows(batch.tokens.flatten())
    for layer in range(model.network_spec.layers):
        projected = model.project(layer, hidden, rotary)
        attended = attend(*(heads.unflatten(0, canvas) for heads in projected), batch.bias)
        hidden = hidden + model.attention_output(layer, attended.flatten(0, 1))
        hidden = hidden + model.feed_forward(layer, hidden)
    rows = hidden.unflatten(0, canvas)[:, canvas[1] - length - shift : canvas[1] - shift]
    logits = model.logits(rows.flatten(0, 1)).float()
    losses = F.cross_entropy(logits, batch.answers.flatten(), reduction="none")
    return (losses.view_as(batch.weights) * batch.weights).sum(dim=1)
