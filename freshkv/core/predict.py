"""From final hidden states to tokens and confidences, for the positions that need them only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.decoder import Decoder, Prediction
from freshkv.core.distribution import Distribution
from freshkv.core.engine import ForwardResult
from freshkv.core.network import Network
from freshkv.core.sampling import Sampling

NEVER = float("-inf")


@frozen(eq=False)
class Predicted:
    """A prediction of the active blocks, and the confidences of all positions that were predicted."""

    in_block: Prediction
    confidence: Tensor  #: float32 [batch, seq]; -inf where not predicted
    everywhere: Tensor  #: bool [batch, seq]; positions predicted, inside the active block or not


class Predictor:
    """Turns hidden states into predictions. Holds the random generators, one a sequence."""

    def __init__(
        self, network: Network, decoder: Decoder, sampling: Sampling, seeds: Sequence[int], gen_length: int
    ) -> None:
        self._network = network
        self._spec = network.network_spec
        self._decoder = decoder
        self._sampling = sampling
        self._gen_length = gen_length
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def predict(self, tokens: Tensor, result: ForwardResult, positions: Tensor, in_block: Tensor) -> Predicted:
        """Predict ``positions``, bool [batch, seq]; the decoder gets those in ``in_block``."""
        inside = (positions & in_block).flatten().nonzero()[:, 0]
        outside = (positions & ~in_block).flatten().nonzero()[:, 0]
        draws = self._draw(tokens) if self._sampling.temperature > 0.0 else torch.zeros(tokens.shape)
        noise = self._draw(tokens) if "noise" in self._decoder.needs else torch.zeros(tokens.shape)
        draws, noise = draws.to(tokens.device), noise.to(tokens.device)
        logits = self._logits(result, torch.cat((inside, outside)))
        confidence = torch.full((tokens.numel(),), NEVER, device=tokens.device)
        proposed = torch.full((tokens.numel(),), self._spec.mask_token_id, device=tokens.device)
        distributions = []
        for places, part in ((inside, logits[: inside.numel()]), (outside, logits[inside.numel() :])):
            distribution = self._sampling.distribution(part, self._spec.mask_token_id)
            best = self._choose(distribution, draws.flatten()[places])
            proposed[places] = best
            confidence[places] = self._decoder.score_tokens(distribution, best, noise.flatten()[places])
            distributions.append(distribution)
        mine = positions & in_block
        confidence = confidence.view(tokens.shape)
        return Predicted(
            in_block=Prediction(
                positions=mine,
                tokens=torch.where(mine, proposed.view(tokens.shape), self._spec.mask_token_id),
                confidence=confidence.masked_fill(~mine, NEVER),
                distribution=distributions[0],
                noise=noise,
            ),
            confidence=confidence,
            everywhere=positions,
        )

    def keep(self, places: list[int]) -> None:
        """Forget the generators of all sequences but these."""
        self._generators = [self._generators[place] for place in places]

    def _choose(self, distribution: Distribution, draws: Tensor) -> Tensor:
        return distribution.best if self._sampling.temperature == 0.0 else distribution.sample(draws)

    def _logits(self, result: ForwardResult, places: Tensor) -> Tensor:
        """float32 [n, vocabulary] for positions ``places``, long [n] into batch * seq."""
        wanted = places - self._spec.logits_shift
        hidden = result.hidden if result.rows.full else None
        if hidden is None:
            packed = torch.zeros(result.rows.mask.numel(), dtype=torch.long, device=places.device)
            packed[result.rows.flat] = torch.arange(result.rows.count, device=places.device)
            wanted, hidden = packed[wanted], result.hidden
        return self._network.logits(hidden.index_select(0, wanted)).float()

    def _draw(self, tokens: Tensor) -> Tensor:
        """Uniform numbers, float32 [batch, seq] on the CPU: one for each response position, whoever is predicted.

        Drawn for the whole response in every step, so that a sequence's numbers depend on its seed and its step alone.
        """
        batch, seq = tokens.shape
        drawn = torch.zeros(batch, seq)
        for place, generator in enumerate(self._generators):
            drawn[place, seq - self._gen_length :] = torch.rand(self._gen_length, generator=generator)
        return drawn
