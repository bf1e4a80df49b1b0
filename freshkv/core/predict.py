"""From final hidden states to tokens and confidences, for the positions that need them only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.check import check_tensor
from freshkv.core.decoder import Decoder, Prediction
from freshkv.core.distribution import Distribution, own_summary
from freshkv.core.divergence import DivergenceMemory
from freshkv.core.errors import DecoderError, FreshkvError
from freshkv.core.forward_result import ForwardResult
from freshkv.core.network import Network
from freshkv.core.rows import places_of
from freshkv.core.sampling import Sampling
from freshkv.core.uploads import uploaded

if TYPE_CHECKING:
    from freshkv.core.state import RunState

NEVER = float("-inf")
#: logits that exist at a time, unless the decoder asks for more: 8 MiB of float32, but those of so many positions
MOST_LOGITS, LEAST_POSITIONS = 1 << 21, 64
NOT_VERIFIED = float("nan")


@frozen(eq=False)
class Wanted:
    """Which positions are predicted: those the decoder chooses among, and the others. Indices into batch * seq."""

    inside: Tensor  #: long [n]; open positions of the active block
    outside: Tensor  #: long [m]
    inside_on_host: Tensor  #: bool [batch, seq]

    @staticmethod
    def masks(state: RunState, positions: Tensor) -> dict[str, Tensor]:
        """``positions``, bool [batch, seq], told apart by name."""
        inside = positions & state.is_open & state.in_block
        return {"inside": inside, "outside": positions & ~inside}

    @classmethod
    def of(cls, on_host: Mapping[str, Tensor], device: torch.device) -> Wanted:
        """From ``masks`` on the host."""
        inside, outside = on_host["inside"], on_host["outside"]
        return cls(places_of(inside, device), places_of(outside, device), inside)

    def owners(self) -> Tensor:
        """long [n], on the host: the place in the batch of the sequence of each position inside."""
        return self.inside_on_host.nonzero()[:, 0]


@frozen(eq=False)
class Predicted:
    """A prediction of the active blocks, and the confidences of all positions that were predicted."""

    in_block: Prediction
    confidence: Tensor  #: float32 [batch, seq]; -inf where not predicted
    everywhere: Tensor  #: bool [batch, seq]; positions predicted, inside the active block or not
    broken: Tensor  #: bool [batch, seq]; positions whose logits are not finite numbers


def logits_at(network: Network, result: ForwardResult, places: Tensor) -> Tensor:
    """float32 [n, vocabulary] for positions ``places``, long [n] into batch * seq, whose rows went through."""
    wanted = places - network.network_spec.logits_shift
    if not result.rows.full:
        packed = torch.zeros(result.rows.mask.numel(), dtype=torch.long, device=places.device)
        packed[result.rows.flat] = torch.arange(result.rows.count, device=places.device)
        wanted = packed[wanted]
    return network.logits(result.hidden.index_select(0, wanted)).float()


class Predictor:
    """Turns hidden states into predictions. Holds the random generators, one a sequence."""

    def __init__(self, network: Network, decoder: Decoder, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._network, self._summary = network, own_summary(network)
        self._spec = network.network_spec
        self._decoder = decoder
        self._sampling = sampling
        self._generators: list[torch.Generator] = []
        self.admit(seeds)
        self._divergence = DivergenceMemory() if "divergence" in decoder.needs else None

    def predict(self, state: RunState, result: ForwardResult, positions: Tensor, wanted: Wanted) -> Predicted:
        """Predict ``positions``, bool [batch, seq]; the decoder gets the open ones of the active block."""
        tokens = state.tokens
        mine = Wanted.masks(state, positions)["inside"]
        draws = self._draw(state) if self._sampling.temperature > 0.0 else torch.zeros_like(state.confidence)
        noise = self._draw(state) if "noise" in self._decoder.needs else torch.zeros_like(state.confidence)
        confidence = torch.full_like(state.confidence, NEVER).flatten()
        proposed = torch.full_like(tokens, self._spec.mask_token_id).flatten()
        broken = torch.zeros_like(positions).flatten()
        kept: list[tuple[Tensor, Distribution]] = []
        for places, logits in self._logits(result, wanted):
            distribution = self._sampling.distribution(logits, self._spec.mask_token_id, self._summary)
            if places is wanted.inside or self._divergence is not None:
                kept.append((places, distribution))
            best = self._choose(distribution, draws.flatten()[places])
            proposed[places] = best
            broken[places] = ~distribution.log_normaliser.isfinite()
            confidence[places] = self._score(distribution, best, noise.flatten()[places])
            del logits, distribution  # the next ones are as large
        confidence = confidence.view(tokens.shape)
        prediction = Prediction(
            positions=mine,
            tokens=proposed.view(tokens.shape).masked_fill(~mine, self._spec.mask_token_id),
            confidence=confidence.masked_fill(~mine, NEVER),
            distribution=kept[0][1],
            verified=self._verified(tokens, result),
            divergence=self._diverged(state, kept),
            noise=noise,
        )
        return Predicted(prediction, confidence, positions, broken.view(tokens.shape))

    def keep(self, places: list[int]) -> None:
        """Forget the generators of all sequences but these."""
        self._generators = [self._generators[place] for place in places]

    def admit(self, seeds: Sequence[int]) -> None:
        """Random generators for more sequences."""
        self._generators += [torch.Generator().manual_seed(seed) for seed in seeds]

    def _logits(self, result: ForwardResult, wanted: Wanted) -> Iterator[tuple[Tensor, Tensor]]:
        """Places, long [n], and their logits, float32 [n, vocabulary]: those inside, then those outside.

        One product with the head where few are predicted, as in most steps; many are taken in turns, because logits
        are the largest tensors of a run. Those inside are by themselves then: they are kept for the decoder.
        """
        inside, outside = wanted.inside, wanted.outside
        most = max(MOST_LOGITS // self._spec.vocabulary, LEAST_POSITIONS)
        if inside.numel() + outside.numel() <= most:
            logits = logits_at(self._network, result, torch.cat((inside, outside)))
            yield inside, logits[: inside.numel()]
            if outside.numel() > 0:
                yield outside, logits[inside.numel() :]
            return
        yield inside, logits_at(self._network, result, inside)
        for places in torch.split(outside, most) if outside.numel() > 0 else ():
            yield places, logits_at(self._network, result, places)

    def _score(self, distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
        where = f"{type(self._decoder).__name__}.score_tokens"
        try:
            score = self._decoder.score_tokens(distribution, tokens, noise)
        except FreshkvError:
            raise
        except Exception as cause:
            raise DecoderError(f"{where} raised {type(cause).__name__}: {cause}") from cause
        check_tensor(score, torch.float32, tuple(tokens.shape), where, DecoderError)
        return score

    def _choose(self, distribution: Distribution, draws: Tensor) -> Tensor:
        return distribution.best if self._sampling.temperature == 0.0 else distribution.sample(draws)

    def _verified(self, tokens: Tensor, result: ForwardResult) -> Tensor:
        verified = torch.full(tokens.shape, NOT_VERIFIED, device=tokens.device)
        shadow = result.shadow
        if shadow is not None:
            logits = self._network.logits(shadow.hidden).float()
            distribution = self._sampling.distribution(logits, self._spec.mask_token_id, self._summary)
            shadow.rows.put(verified.view(-1), distribution.probability_of(shadow.rows.take(tokens.flatten())))
        return verified.masked_fill(tokens == self._spec.mask_token_id, NOT_VERIFIED)

    def _diverged(self, state: RunState, kept: Sequence[tuple[Tensor, Distribution]]) -> Tensor:
        divergence = torch.full_like(state.confidence, torch.inf)
        if self._divergence is not None:
            seq = divergence.shape[1]
            flat = torch.cat([places for places, _ in kept])
            lasting = state.sequence[flat // seq] * seq + flat % seq  # the same number while the batch shrinks
            probabilities = torch.cat([distribution.probabilities for _, distribution in kept])
            divergence.view(-1)[flat] = self._divergence.update(lasting, probabilities)
        return divergence

    def _draw(self, state: RunState) -> Tensor:
        """Uniform numbers, float32 [batch, seq]: one for each response position, whoever is predicted.

        Drawn for the whole response in every step, so that a sequence's numbers depend on its seed and its step alone.
        """
        batch, seq = state.tokens.shape
        drawn = torch.zeros(batch, seq)
        for place, (generator, length) in enumerate(zip(self._generators, state.gen_length, strict=True)):
            drawn[place, seq - length :] = torch.rand(length, generator=generator)
        return uploaded(drawn, state.tokens.device)
