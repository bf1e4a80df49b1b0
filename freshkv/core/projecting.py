"""Projects rows of a layer, and leaves their keys and values in the store."""

from __future__ import annotations

import torch
from attrs import evolve, frozen
from torch import Tensor

from freshkv.core.network import Network
from freshkv.core.rows import RowSet
from freshkv.core.store import RowStore
from freshkv.core.turns import turns_of

#: bytes of a layer's queries from which on those that are kept lie together, and not with the keys beside them
WORTH_A_PLACE = 1 << 18


@frozen(eq=False)
class FirstLayer:
    """The first layer behind a pass that refreshed every row of it; its keys and values are in the store."""

    tokens: Tensor  #: long [batch, seq]; what entered it
    queries: Tensor  #: [batch * seq, heads, head_width]

    def kept(self, sequences: Tensor) -> FirstLayer:
        """Of these sequences alone, long [some]."""
        queries = torch.unflatten(self.queries, 0, self.tokens.shape).index_select(0, sequences).flatten(0, 1)
        return FirstLayer(self.tokens.index_select(0, sequences), queries)


class Projections:
    """Queries of each layer's rows, while their keys and values are written.

    What the first layer projects depends on tokens alone. With ``reuse``, where every row of it is refreshed in pass
    after pass, only rows with another token than before are projected there.

    ``together`` says of the pass that the same rows are refreshed in all layers and their queries needed until it has
    ended: many are then one piece of memory, since pieces that outlive what lies between them leave holes.
    """

    def __init__(self, network: Network, store: RowStore, *, reuse: bool = False) -> None:
        self._network, self._store, self._reuse = network, store, reuse
        self.together = False
        self._kept: Tensor | None = None  # [layers, rows, heads, head_width], of a pass of many rows
        self._first: FirstLayer | None = None  # behind the pass before, if it refreshed every row
        self._before: FirstLayer | None = None
        self._changed: RowSet | None = None
        self._tokens: Tensor | None = None

    def changed(self, tokens: Tensor) -> Tensor | None:
        """bool [batch, seq]: rows to which ``tokens``, long [batch, seq], give another token than the pass before had.

        None where that is of no use.
        """
        return None if self._first is None else self._first.tokens != tokens

    def start(self, tokens: Tensor, changed: RowSet | None) -> None:
        """A pass over ``tokens`` begins; ``changed`` is what the method of that name says, None: nobody asked."""
        self._before, self._first = (None if changed is None else self._first), None
        self._tokens, self._changed, self.together, self._kept = tokens, changed, False, None

    def project(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet) -> Tensor:
        """Queries [rows, heads, head_width] of ``hidden`` [rows, width]; ``rotary`` is that of ``rows``."""
        if layer > 0 or not self._reuse or not rows.full or self._tokens is None:
            return self._all(layer, hidden, rotary, rows)
        if self._before is None or self._changed is None:
            queries = self._all(layer, hidden, rotary, rows)
        else:
            queries, changed = self._before.queries, self._changed
            if changed.count > 0:
                cosine, sine = rotary
                entered, turned = changed.take(hidden), (changed.take(cosine), changed.take(sine))
                changed.put(queries, self._all(layer, entered, turned, changed))
        # whoever decodes goes on to write to the canvas
        self._first = FirstLayer(self._tokens.clone(), queries)
        return queries

    def keep(self, sequences: Tensor) -> None:
        """Forget all sequences but these, long [some]."""
        self._first = None if self._first is None else self._first.kept(sequences)
        self._kept = None

    def forget(self) -> None:
        """Other sequences from now on."""
        self._first = self._kept = None

    def _all(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet) -> Tensor:
        turns, (cosine, sine) = turns_of(rows.count, hidden.element_size()), rotary
        if len(turns) == 1:
            queries = self._some(layer, hidden, rotary, rows)
            place = self._place(layer, rows.count, queries)
            return queries if place is None else place.copy_(queries)
        place = None
        for part in turns:
            some = self._some(layer, hidden[part], (cosine[part], sine[part]), _part_of(rows, part))
            if place is None:
                place = self._place(layer, rows.count, some)
            if place is None:
                place = some.new_empty(rows.count, *some.shape[1:])
            place[part] = some
        assert place is not None
        return place

    def _place(self, layer: int, count: int, like: Tensor) -> Tensor | None:
        """Where queries of ``count`` rows are kept, [count, heads, head_width]; None: anywhere."""
        shape = torch.Size((count, *like.shape[1:]))
        large = shape.numel() * like.element_size() >= WORTH_A_PLACE
        if not self.together or not large or (self._reuse and layer == 0):
            return None
        if self._kept is None:
            self._kept = like.new_empty(self._network.network_spec.layers, *shape)
        return self._kept[layer] if self._kept.shape[1:] == shape else like.new_empty(shape)

    def _some(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet) -> Tensor:
        queries, keys, values = self._network.project(layer, hidden, rotary)
        self._store.write_keys(layer, rows, keys)
        self._store.write_values(layer, rows, values)
        return queries


def _part_of(rows: RowSet, part: slice) -> RowSet:
    """Some packed rows, as places to write to."""
    flat = rows.flat[part]
    span = None
    if rows.span is not None:
        first = rows.span.start + part.start
        span = slice(first, first + flat.numel())
    return evolve(rows, flat=flat, span=span, counts=(flat.numel(),), queries=None, answers=None)
