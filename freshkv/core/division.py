"""How a network's heads are divided among processes, and what brings their parts together.

With tensor parallel every process holds some of the heads and goes through the same run. Keys, values and queries are
then of its own heads; hidden states and logits are whole in every process. What is averaged over heads needs those of
all processes, and what is decided must be the same in all of them, or they would wait for each other for ever.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from attrs import evolve
from torch import Tensor
from torch.nn import functional

from freshkv.core.network import Network, NetworkSpec

_ELEMENTS = -1  #: the axis of a vector's elements

#: what no norm is divided by less than
SMALLEST_NORM = 1e-12


class Division:
    """Nothing is divided: this process holds all heads. ``DividedHeads`` is the other case.

    A network that is divided has its Division as the attribute ``division``; its ``network_spec`` is that of the whole.
    Every method is called by all processes at the same point, with values of the same shape.
    """

    parts = 1  #: processes; each holds as many heads

    def total(self, value: Tensor) -> Tensor:
        """The sum of every process's ``value``, of any shape."""
        return value

    def first(self, value: Tensor) -> Tensor:
        """The ``value`` of the first process, of any shape and dtype."""
        return value

    def mean(self, value: Tensor) -> Tensor:
        """The mean of every process's ``value``: from means over its own heads to that over all."""
        return value

    def part_of(self, spec: NetworkSpec) -> NetworkSpec:
        """``spec`` with the heads of this process alone."""
        return spec

    def norm(self, vectors: Tensor) -> Tensor:
        """Euclidean norm of vectors [..., elements], whose elements are those of all heads: [...]."""
        norm: Tensor = vectors.norm(dim=_ELEMENTS)
        return norm

    def unit(self, vectors: Tensor) -> Tensor:
        """Such vectors over their norm, [..., elements]; 0 stays 0."""
        return functional.normalize(vectors, dim=_ELEMENTS)

    def cosine(self, one: Tensor, other: Tensor) -> Tensor:
        """Cosine of such vectors: [...]."""
        # torch's own function divides both by their norms first, element by element
        mine, its = (self.norm(vectors).clamp(min=SMALLEST_NORM) for vectors in (one, other))
        cosine: Tensor = (one * other).sum(dim=_ELEMENTS) / (mine * its)
        return cosine


class DividedHeads(Division, ABC):
    """Each of ``parts`` processes holds an equal share of the heads. A subclass says how they reach each other."""

    @abstractmethod
    def total(self, value: Tensor) -> Tensor:
        """See ``Division``. Must leave ``value`` as it is, and give every process the same numbers."""

    @abstractmethod
    def first(self, value: Tensor) -> Tensor:
        """See ``Division``. Must leave ``value`` as it is."""

    def mean(self, value: Tensor) -> Tensor:
        """See ``Division``."""
        return self.total(value) / self.parts

    def part_of(self, spec: NetworkSpec) -> NetworkSpec:
        """See ``Division``."""
        return evolve(spec, heads=spec.heads // self.parts, kv_heads=spec.kv_heads // self.parts)

    def norm(self, vectors: Tensor) -> Tensor:
        """See ``Division``."""
        return self.total(vectors.square().sum(dim=_ELEMENTS)).sqrt()

    def unit(self, vectors: Tensor) -> Tensor:
        """See ``Division``."""
        return vectors / self.norm(vectors).clamp(min=SMALLEST_NORM)[..., None]

    def cosine(self, one: Tensor, other: Tensor) -> Tensor:
        """See ``Division``."""
        products = torch.stack([(a * b).sum(dim=_ELEMENTS) for a, b in ((one, other), (one, one), (other, other))])
        together, mine, its = self.total(products)
        cosine: Tensor = together / (mine.sqrt() * its.sqrt()).clamp(min=SMALLEST_NORM)
        return cosine


UNDIVIDED = Division()


def division_of(network: Network) -> Division:
    """How ``network`` is divided; not at all, if it does not say."""
    division: Division = getattr(network, "division", UNDIVIDED)
    return division
