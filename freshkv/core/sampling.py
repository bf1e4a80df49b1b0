"""Temperature, top-k and top-p, in the order and with the meaning of transformers' warpers."""

from __future__ import annotations

import torch
from attrs import field, frozen
from torch import Tensor

from freshkv.core.distribution import VOCABULARY, Distribution, LogitSummary
from freshkv.core.errors import InputError


@frozen(kw_only=True)
class Sampling:
    """How tokens are drawn. ``temperature`` 0 takes the most probable token (of those that top-k and top-p leave)."""

    temperature: float = field(default=0.0)
    top_k: int | None = field(default=None)
    top_p: float | None = field(default=None)

    def __attrs_post_init__(self) -> None:
        for name, kind in (("temperature", (int, float)), ("top_k", int), ("top_p", (int, float))):
            value = getattr(self, name)
            if (value is not None or name == "temperature") and (
                isinstance(value, bool) or not isinstance(value, kind)
            ):
                raise InputError(f"{name} is {value!r}; expected a {'whole ' if name == 'top_k' else ''}number.")
        if not 0.0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}; expected a finite number of at least 0.")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; expected at least 1, or None for all tokens.")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise InputError(f"top_p is {self.top_p}; expected a number in (0, 1], or None for all tokens.")

    def distribution(self, logits: Tensor, mask_token_id: int, summary: LogitSummary | None = None) -> Distribution:
        """From a network's ``logits``, float32 [n, vocabulary], which are overwritten.

        The filters choose among proper tokens; the mask token keeps its share where its logit reaches theirs.
        ``summary`` is the network's own, None: by torch.
        """
        if self.temperature > 0.0:
            logits = logits / self.temperature
        mask_logit = logits[:, mask_token_id].clone()
        logits[:, mask_token_id] = float("-inf")
        kept = self._filter(logits)
        if kept is not logits:
            smallest = kept.masked_fill(kept == float("-inf"), float("inf")).amin(dim=VOCABULARY)
            mask_logit = mask_logit.masked_fill(mask_logit < smallest, float("-inf"))
        return Distribution(kept, mask_logit, mask_token_id, summary)

    def _filter(self, logits: Tensor) -> Tensor:
        if self.top_k is not None and self.top_k < logits.shape[VOCABULARY]:
            smallest = logits.topk(self.top_k, dim=VOCABULARY).values[:, -1:]
            logits = logits.masked_fill(logits < smallest, float("-inf"))
        if self.top_p is not None and self.top_p < 1.0:
            logits = _keep_top_p(logits, self.top_p)
        return logits


def _keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of most probable tokens whose probability reaches ``top_p``; always at least one."""
    ordered, index = logits.sort(dim=VOCABULARY, descending=True, stable=True)
    probabilities = ordered.softmax(dim=VOCABULARY)
    before = probabilities.cumsum(dim=VOCABULARY) - probabilities
    beyond = before >= top_p  # the first is 0 before it: one token always stays
    excluded = torch.zeros_like(beyond).scatter(VOCABULARY, index, beyond)
    return logits.masked_fill(excluded, float("-inf"))
