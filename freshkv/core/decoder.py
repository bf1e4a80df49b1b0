"""The interface of decoders: which predicted tokens are fixed in a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from attrs import field, frozen
from torch import Tensor

from freshkv.core.distribution import Distribution
from freshkv.core.spec import Configurable
from freshkv.core.view import StepView

#: What a decoder may ask for in ``needs``:
#: ``noise``        a uniform number per position, from the generator of its sequence
#: ``divergence``   fills ``Prediction.divergence``
DECODER_NEEDS = frozenset({"noise", "divergence"})


@frozen(kw_only=True, eq=False)
class Prediction:
    """What the forward pass says about the masked positions that it predicted."""

    positions: Tensor  #: bool [batch, seq]; predicted in this step, all masked
    tokens: Tensor  #: long [batch, seq]; the proposed token at those positions, the mask token elsewhere
    confidence: Tensor  #: float32 [batch, seq]; the decoder's score of that token, -inf elsewhere
    #: of the predicted positions in row-major order, [positions.sum(), vocabulary]
    distribution: Distribution
    #: float32 [batch, seq]; probability of the present token of decided positions that were verified, NaN elsewhere
    verified: Tensor
    #: float32 [batch, seq]; KL divergence from the distribution of the step before, inf where there was none
    divergence: Tensor
    noise: Tensor  #: float32 [batch, seq]; uniform in [0, 1) where the decoder needs "noise", else zeros

    @property
    def logits(self) -> Tensor:
        """float32 [positions.sum(), vocabulary], row-major over ``positions``; -inf at tokens that are excluded."""
        return self.distribution.logits

    def handed(self) -> dict[str, Tensor]:
        """The tensors that a decoder is handed, by name."""
        names = ("positions", "tokens", "confidence", "verified", "divergence", "noise", "logits")
        return {f"prediction.{name}": getattr(self, name) for name in names}

    def place(self, values: Tensor, fill: float) -> Tensor:
        """Bring ``values`` [positions.sum()] to the canvas: [batch, seq], ``fill`` at positions not predicted."""
        canvas = values.new_full(self.positions.shape, fill)
        return canvas.masked_scatter(self.positions, values)


@frozen(eq=False)
class Commit:
    """A decoder's answer: which positions are fixed, to which tokens."""

    positions: Tensor  #: bool [batch, seq]; masked, predicted, in the active block; at least one a sequence
    tokens: Tensor  #: long [batch, seq]; read at ``positions`` only
    remask: Tensor | None = field(
        default=None, kw_only=True
    )  #: bool [batch, seq]; put the mask back (revocable decoders)
    #: tensors [batch, seq, ...] that the core hands back in ``view.memory`` from the next step on, as for a Selection
    remember: Mapping[str, Tensor] = field(factory=dict, kw_only=True)


class Decoder(Configurable, ABC):
    """Decides which predicted tokens are committed. Subclass with ``attrs.frozen`` and give it a ``name``.

    A decoder is a pure function of what it is handed and its own frozen options, a sequence at a time.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()  #: see DECODER_NEEDS
    revocable: ClassVar[bool] = False  #: whether it may remask

    def score_tokens(self, distribution: Distribution, tokens: Tensor, noise: Tensor) -> Tensor:
        """Confidence, float32 [n], of ``tokens`` [n] under ``distribution`` [n, vocabulary]: their probability."""
        return distribution.probability_of(tokens)

    def verify(self, view: StepView) -> Tensor | None:
        """Positions of the active block, bool [batch, seq], that are predicted once more without seeing themselves.

        Asked of revocable decoders only. Each position gets a shadow row; ``Prediction.verified`` tells the result at
        those that are decided.
        """
        return None

    @abstractmethod
    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        """Choose at least one predicted position of the active block for every sequence."""
