"""Which keys may be attended to in a pass, and where attention finds them: in place behind a mask, or gathered."""

from __future__ import annotations

from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ

#: when visible keys are gathered: where it pays, wherever keys are hidden, or nowhere
Gathering = Literal["auto", "always", "never"]

#: shares of the keys that are visible, at most, for gathering to pay. The copy costs about as much as the attention
#: that it saves where half are hidden; it is made once for as long as the same keys are visible
WORTH_AT_ONCE = 0.4
WORTH_IF_IT_STAYS = 0.9


@frozen(eq=False)
class Visible:
    """Which keys may be attended to, bool [batch, seq] or [batch, layers, seq]; the same on the device and the host."""

    mask: Tensor
    on_host: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Visible:
        """One synchronisation with the device."""
        return cls(mask, mask.cpu())

    def beside(self, others: Visible) -> Visible:
        """These sequences, and the others behind them."""
        return Visible(torch.cat((self.mask, others.mask)), torch.cat((self.on_host, others.on_host)))

    def __and__(self, other: Visible) -> Visible:
        """What both allow; the other one is the same in all layers."""
        by_layer = self.mask.ndim == 3
        mask, on_host = (each[:, None] if by_layer else each for each in (other.mask, other.on_host))
        both = self.mask & mask
        return Visible(both, both if self.on_host is self.mask else self.on_host & on_host)


@frozen(eq=False)
class VisibleKeys:
    """The keys of one layer that may be attended to.

    In place, ``columns`` is None and ``mask`` has a place for each position. Gathered, ``columns`` names the visible
    positions, so that hidden ones cost nothing; sequences that see fewer than the others repeat their first one, which
    ``mask`` then hides.
    """

    #: bool [batch, kept] (in place: [batch, seq]); False: not to be attended to; None: all. Where rows differ in what
    #: they see, [batch, widest, kept], for the rows of one RowSet
    mask: Tensor | None
    columns: Tensor | None = None  #: long [batch, kept]; positions
    #: long [batch * seq]; the place of each row among batch * kept gathered ones, batch * kept where it has none
    slots: Tensor | None = None

    def spread(self, received: Tensor, seq: int) -> Tensor:
        """What gathered keys received, [batch, kept], at their positions, [batch, seq]; 0 elsewhere."""
        if self.columns is None:
            return received
        # a repeated column is masked, so that it received nothing
        return received.new_zeros(received.shape[0], seq).scatter_add_(SEQ, self.columns, received)


def in_place(visible: Tensor | None, layers: int) -> tuple[VisibleKeys, ...]:
    """For each layer, of ``visible``, bool [batch, seq] or [batch, layers, seq]; None: all keys."""
    if visible is None or visible.ndim == 2:
        return (VisibleKeys(visible),) * layers
    return tuple(VisibleKeys(visible[:, layer]) for layer in range(layers))


def gathered(visible: Visible, layers: int) -> tuple[VisibleKeys, ...]:
    """The same, each layer's keys side by side."""
    same = visible.mask.ndim == 2
    by_layer, on_host = (mask[:, None] if same else mask for mask in (visible.mask, visible.on_host))
    counts = by_layer.sum(dim=-1)  # long [batch, layers or 1]
    order = (~by_layer).byte().argsort(dim=-1, stable=True)  # visible positions first
    found = []
    for layer, kept in enumerate(on_host.sum(dim=-1).unbind(dim=1)):
        most, fewest = int(kept.max()), int(kept.min())
        columns, mask = order[:, layer, :most], None
        if fewest < most:
            mask = torch.arange(most, device=counts.device) < counts[:, layer, None]
            columns = torch.where(mask, columns, columns[:, :1])
        found.append(VisibleKeys(mask, columns, _slots(columns, mask, by_layer.shape[-1])))
    return (found[0],) * layers if same else tuple(found)


def _slots(columns: Tensor, mask: Tensor | None, seq: int) -> Tensor:
    batch = columns.shape[0]
    flat = columns + torch.arange(batch, device=columns.device)[:, None] * seq
    if mask is not None:
        flat = torch.where(mask, flat, batch * seq)  # repeated columns go nowhere
    slots = torch.full((batch * seq + 1,), columns.numel(), device=columns.device)
    slots[flat.flatten()] = torch.arange(columns.numel(), device=columns.device)
    return slots[:-1]


class Sight:
    """Decides, pass by pass, in which form the visible keys are handed to attention."""

    def __init__(self, layers: int, gathering: Gathering) -> None:
        self._layers = layers
        self._gathering = gathering
        self._last: Tensor | None = None  # on the host
        self._keys: tuple[VisibleKeys, ...] = in_place(None, layers)

    def look(self, visible: Visible | None, *, hides: bool) -> tuple[VisibleKeys, ...]:
        """For each layer; the same objects as in the last pass where nothing changed.

        ``visible`` leaves padding out; None: all keys. ``hides`` says that more than padding may be hidden.
        """
        if visible is None or not hides:
            self._last, self._keys = None, in_place(None if visible is None else visible.mask, self._layers)
            return self._keys
        last, self._last = self._last, visible.on_host
        stays = last is not None and torch.equal(last, visible.on_host)
        if stays and self._keys[0].columns is not None:
            return self._keys
        if self._pays(float(visible.on_host.float().mean()), stays=stays):
            self._keys = gathered(visible, self._layers)
        else:
            self._keys = in_place(visible.mask, self._layers)
        return self._keys

    def forget(self) -> None:
        """Other sequences from now on."""
        self._last = None

    def _pays(self, share: float, *, stays: bool) -> bool:
        if self._gathering != "auto":
            return self._gathering == "always"
        return share <= (WORTH_IF_IT_STAYS if stays else WORTH_AT_ONCE)
