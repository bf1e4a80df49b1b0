"""How far a position's distribution moved since the step before."""

from __future__ import annotations

import torch
from torch import Tensor

from freshkv.core.distribution import VOCABULARY


class DivergenceMemory:
    """Keeps the distributions of the last step, of the positions that were predicted in it only."""

    def __init__(self) -> None:
        self._places: Tensor | None = None  # long [n]
        self._probabilities: Tensor | None = None  # float32 [n, vocabulary]

    def update(self, places: Tensor, probabilities: Tensor) -> Tensor:
        """KL(new || old) in nats, float32 [n], of ``probabilities`` [n, vocabulary] at ``places``, long [n].

        inf where the position was not predicted in the step before.
        """
        divergence = torch.full(places.shape, torch.inf, device=places.device)
        if self._places is not None and self._probabilities is not None and self._places.numel() > 0:
            ordered, order = self._places.sort()
            found = torch.searchsorted(ordered, places).clamp(max=ordered.numel() - 1)
            # of places that are not found something is compared, too: picking them out would make the host wait
            known, old = ordered[found] == places, self._probabilities[order[found]]
            # xlogy is 0 where the new probability is; a vanishing old one counts as the smallest number
            smallest = torch.finfo(torch.float32).tiny
            terms = torch.xlogy(probabilities, probabilities) - probabilities * old.clamp(min=smallest).log()
            divergence = torch.where(known, terms.sum(dim=VOCABULARY), divergence)
        self._places, self._probabilities = places, probabilities
        return divergence
