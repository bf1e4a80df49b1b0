"""Token distributions of predicted positions, computed once and in float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from freshkv.core.network import Network

VOCABULARY = -1  #: the axis of token ids
MOST_SHARES = 1 << 18  #: exponentials that exist at a time: 1 MiB, which a processor's caches hold
STRETCH = 128  #: tokens among which the largest logit is looked for at a time

#: of logits, float32 [n, vocabulary]: the largest ones [n], where they are first, long [n], and the sums of
#: e^(logit - largest) [n]
LogitSummary = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def own_summary(network: Network) -> LogitSummary | None:
    """The ``logit_summary`` of ``network``, if it has any."""
    own: LogitSummary | None = getattr(network, "logit_summary", None)
    return own


class Distribution:
    """Distributions of n positions over the vocabulary, in float32.

    The mask token keeps its share of the probability, so that confidences are the model's own, but it is never
    proposed: its logit is -inf in ``logits``. Everything derived is computed when first asked for and kept; treat it as
    read-only. ``summary`` is that of the network, None: by torch.
    """

    def __init__(
        self, logits: Tensor, mask_logit: Tensor, mask_token_id: int, summary: LogitSummary | None = None
    ) -> None:
        self.logits = logits  #: float32 [n, vocabulary]; -inf at the mask token and wherever a filter excludes a token
        self.mask_logit = mask_logit  #: float32 [n]; -inf where a filter excludes it
        self.mask_token_id = mask_token_id
        self._summary = summary

    def take(self, index: Tensor) -> Distribution:
        """The distributions ``index``, long [k]."""
        return Distribution(
            self.logits.index_select(0, index),
            self.mask_logit.index_select(0, index),
            self.mask_token_id,
            self._summary,
        )

    @cached_property
    def log_normaliser(self) -> Tensor:
        """float32 [n]: log of the sum over all tokens, the mask token included."""
        largest = self._largest[0]
        largest = largest.masked_fill(largest.isinf(), 0.0)  # as torch.logsumexp does, whose maximum is at hand here
        return torch.logaddexp(largest + self._sums(largest).log(), self.mask_logit)

    def _sums(self, largest: Tensor) -> Tensor:
        if self._summarised is not None:
            return self._summarised[2]
        rows = max(MOST_SHARES // self.logits.shape[VOCABULARY], 1)
        parts = zip(torch.split(self.logits, rows), torch.split(largest, rows), strict=True)
        return torch.cat([(logits - most[:, None]).exp_().sum(dim=VOCABULARY) for logits, most in parts])

    @cached_property
    def probabilities(self) -> Tensor:
        """float32 [n, vocabulary], the mask token's share included."""
        shares = torch.exp(self.logits - self.log_normaliser[:, None])
        shares[:, self.mask_token_id] = torch.exp(self.mask_logit - self.log_normaliser)
        return shares

    @cached_property
    def best(self) -> Tensor:
        """long [n]: the most probable token."""
        return self._largest[1]

    @cached_property
    def _summarised(self) -> tuple[Tensor, Tensor, Tensor] | None:
        return None if self._summary is None else self._summary(self.logits)

    @cached_property
    def _largest(self) -> tuple[Tensor, Tensor]:
        """The largest logit, float32 [n], and where it is first, long [n]."""
        if self._summarised is not None:
            return self._summarised[:2]
        stretches = self.logits.shape[VOCABULARY] // STRETCH
        if self.logits.device.type != "cpu" or stretches < STRETCH:
            values, places = self.logits.max(dim=VOCABULARY)
            return values, places
        # a CPU finds the largest value several times faster than its place: look for that where the value is
        whole = self.logits[:, : stretches * STRETCH]
        largest = torch.unflatten(whole, VOCABULARY, (stretches, STRETCH)).amax(dim=VOCABULARY)
        rest = self.logits[:, stretches * STRETCH :]
        if rest.shape[VOCABULARY] > 0:
            largest = torch.cat((largest, rest.amax(dim=VOCABULARY, keepdim=True)), dim=VOCABULARY)
        first = largest.max(dim=VOCABULARY).indices * STRETCH
        among = first[:, None] + torch.arange(STRETCH, device=first.device)
        among = among.clamp(max=self.logits.shape[VOCABULARY] - 1)
        values, place = self.logits.gather(VOCABULARY, among).max(dim=VOCABULARY)
        return values, first + place

    @cached_property
    def entropy(self) -> Tensor:
        """float32 [n], in nats; tokens of probability 0 add nothing."""
        terms: Tensor = torch.special.entr(self.probabilities)
        return terms.sum(dim=VOCABULARY)

    @cached_property
    def margin(self) -> Tensor:
        """float32 [n]: probability of the best token minus that of the second."""
        top = self.logits.topk(2, dim=VOCABULARY).values
        first, second = torch.exp(top - self.log_normaliser[:, None]).unbind(dim=VOCABULARY)
        return first - second

    def probability_of(self, tokens: Tensor) -> Tensor:
        """float32 [n]: the probability of one token, long [n], in each distribution."""
        chosen = self.logits.gather(VOCABULARY, tokens[:, None])[:, 0]
        return torch.exp(chosen - self.log_normaliser)

    def sample(self, uniform: Tensor) -> Tensor:
        """long [n]: tokens by inverse transform of ``uniform``, float [n] in [0, 1); never the mask token.

        One number a position, so that the draw does not depend on which other positions are predicted.
        """
        cumulative = self.logits.softmax(dim=VOCABULARY).double().cumsum(dim=VOCABULARY)
        threshold = uniform[:, None].double() * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
        return index.clamp(max=self.logits.shape[VOCABULARY] - 1)
