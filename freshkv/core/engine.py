"""The forward pass over some rows, against cached keys and values of the others. Both paths, one semantics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from freshkv.core.attention_drift import AttentionDrift
from freshkv.core.canvas import rotary_positions
from freshkv.core.division import division_of
from freshkv.core.forward_result import ForwardResult
from freshkv.core.graphs import Made, Record, RecordedPasses
from freshkv.core.kept_attention import AttentionOfPass, KeptAttention, own_attention, received_or_scored
from freshkv.core.network import Network
from freshkv.core.pattern import AttentionPattern, PatternSight
from freshkv.core.probing import Probing, not_measured
from freshkv.core.projecting import Projections
from freshkv.core.rollout import attention_rollout
from freshkv.core.rows import RowSet
from freshkv.core.shadow import ShadowRows
from freshkv.core.store import RowStore
from freshkv.core.turns import added, computed
from freshkv.core.uploads import numbers
from freshkv.core.visible import Gathering, Sight, Visible, VisibleKeys

#: what becomes of padding: its rows flow like any others; or it is blank, zeros in the cache, and none of its rows flow
Padding = Literal["computed", "blank"]

#: (layer, movement [batch, seq]) to the rows, bool [batch, seq], that are refreshed in that layer
ChooseRows = Callable[[int, Tensor], Tensor]


class Engine:
    """Runs a network over chosen rows and keeps what they leave behind.

    ``is_valid`` is bool [batch, seq], False at left padding. ``carried`` allocates the outputs that the carried path
    adds; ``keep_queries`` keeps each layer's queries of the last pass, which ``attention_scores`` reads, ``keep_paid``
    what ``attention_received`` reads, ``keep_rollout`` what ``rollout`` does; ``keep_hidden`` keeps in the store what
    every row last left each layer with; ``keep_inputs`` what entered a layer when a row was last refreshed in it, which
    probes of hidden states compare with; ``watch_attention`` fills ``attention_drift`` layer by layer. ``gathering``
    says when visible keys are copied side by side, so that hidden ones cost nothing; it never changes a result by more
    than the order of additions does. ``record`` has narrow passes recorded and replayed (see ``graphs``), those in
    which every key is visible and nobody looks on; the others run as ever. ``reuse_projections`` is explained in
    ``Projections``. With ``padding`` "blank" whoever calls leaves padding out of the rows.
    """

    def __init__(
        self,
        network: Network,
        is_valid: Tensor,
        *,
        carried: bool = False,
        keep_queries: bool = False,
        keep_paid: bool = False,
        keep_rollout: bool = False,
        keep_hidden: bool = False,
        keep_inputs: bool = False,
        watch_attention: bool = False,
        gathering: Gathering = "auto",
        inference_mode: bool = True,
        record: Record | None = None,
        reuse_projections: bool = False,
        padding: Padding = "computed",
        poison: bool = False,
    ) -> None:
        batch, seq = is_valid.shape
        self.network = network
        self.spec = network.network_spec
        self.division = division_of(network)
        self._mine = self.division.part_of(self.spec)  # heads of this process
        self.store = RowStore(
            self._mine,
            batch,
            seq,
            device=network.device,
            dtype=network.dtype,
            carried=carried,
            keep_hidden=keep_hidden,
            keep_inputs=keep_inputs,
            keep_queries=watch_attention,
            poison=poison,
        )
        if padding == "blank":
            self.store.blank(~is_valid)
        self._hold(Visible.of(is_valid))
        positions = rotary_positions(is_valid)
        cosine, sine = network.rotary(positions.flatten())
        pattern = AttentionPattern.of(self.spec)
        self._pattern = None if pattern is None else PatternSight(pattern, positions)
        self._cosine, self._sine = cosine, sine  # [batch * seq, head_width]
        self._record, self._recorded = record, None if record is None else self._make_recorded(record)
        own, paid, reuse = own_attention(network), keep_paid or keep_rollout, reuse_projections and record is None
        self._attended = AttentionOfPass(own, queries=keep_queries, paid=paid, replayed=record is not None)
        self._recalled, self._keep_rollout = keep_queries or keep_paid, keep_rollout
        self._rolled_out: Tensor | None = None  # within a pass that was replayed
        self._projections = Projections(network, self.store, reuse=reuse)
        self._keep_hidden, self._keep_inputs, self._inference_mode = keep_hidden, keep_inputs, inference_mode
        self._visible: Visible | None = None
        self._sight = Sight(self.spec.layers, gathering)
        self._seen: tuple[VisibleKeys, ...] = ()
        self._drift = AttentionDrift(self.store, self._pattern, self.division) if watch_attention else None
        #: float32 [batch]; of the watched rows in the layer that was computed last, NaN where unknown
        self.attention_drift = torch.full((batch,), torch.nan, device=network.device)

    def changed(self, tokens: Tensor) -> Tensor | None:
        """Which of ``tokens``, long [batch, seq], are others than in the pass before, bool; None: of no use."""
        return self._projections.changed(tokens)

    @torch.no_grad()
    def narrow(
        self,
        tokens: Tensor,
        rows: RowSet,
        visible: Visible | None = None,
        verify: RowSet | None = None,
        changed: RowSet | None = None,
    ) -> ForwardResult:
        """Only ``rows`` flow, the same in all layers. ``tokens`` is long [batch, seq].

        ``visible`` says which keys may be attended to; what is visible and no padding must have been computed before or
        be in ``rows``. ``verify`` says which positions are given a shadow row. ``changed`` is what the method of that
        name says, or None; it never changes a result.
        """
        network, store, shadow = self.network, self.store, self._shadow(verify)
        store.mark_written(rows)
        self._start(tokens, changed, visible)
        self._projections.together = self._attended.keeps_queries(rows, self._mine.heads)
        if shadow is None and self._recorded is not None and self._replays(rows, visible):
            made = self._recorded.run(tokens, rows)
            hidden, *queries = made.of_rows
            self._attended.restore(rows, queries)
            self._rolled_out = made.of_canvas[0].clone() if made.of_canvas else None
            return ForwardResult(hidden, rows, (rows,) * self.spec.layers)
        with self._inference():
            hidden, rotary = network.embed_rows(rows.take(tokens.flatten())), self._rotary(rows)
            for layer in range(self.spec.layers):
                hidden = self._through(layer, hidden, rotary, rows)
                if self._keep_hidden:
                    store.write_hidden(layer, rows, hidden)
                if shadow is not None:
                    shadow.advance(layer, store, self._seen[layer])
        return ForwardResult(hidden, rows, (rows,) * self.spec.layers, shadow)

    @torch.no_grad()
    def carried(
        self,
        tokens: Tensor,
        choose: ChooseRows,
        probing: Probing | None = None,
        visible: Visible | None = None,
        verify: RowSet | None = None,
        watch: Tensor | None = None,
        changed: RowSet | None = None,
    ) -> ForwardResult:
        """All rows flow; ``choose`` picks those refreshed in a layer, the others add their cached outputs.

        ``probing`` measures rows first in every layer, and ``choose`` learns how far they moved. ``watch``, bool
        [batch, seq], are the rows of ``attention_drift``; ``changed`` is as in ``narrow``.
        """
        network, store = self.network, self.store
        self._start(tokens, changed, visible, watch)
        shadow = self._shadow(verify)
        everything = RowSet.everything(tokens)
        hidden = network.embed_rows(tokens.flatten())
        nobody = (0,) * tokens.shape[0]
        refreshed: list[RowSet] = []
        probed: list[tuple[int, ...]] = []
        watched: list[tuple[int, ...]] = []
        for layer in range(self.spec.layers):
            movement, measured = not_measured(hidden), None
            if probing is not None:
                movement, measured = probing.measure(layer, hidden, store, network)
            probed.append(nobody if measured is None else measured.counts)
            rows = RowSet.after(refreshed, choose(layer, movement.view(tokens.shape)))
            if self._keep_inputs:
                store.write_inputs(layer, rows, rows.take(hidden))
            store.mark_written(rows)  # a sequence's first pass refreshes all of it in every layer
            with self._inference():
                hidden = self._carry(layer, hidden, rows)
            self.attention_drift = self.attention_drift.clone()  # a policy may have it remembered
            if self._keep_hidden:
                store.write_hidden(layer, everything, hidden)
            refreshed.append(rows)
            watched.append((self._drift.counts if self._drift is not None and rows.count > 0 else ()) or nobody)
            if shadow is not None:
                shadow.advance(layer, store, self._seen[layer])
        counts = (tuple(counted) if any(map(any, counted)) else () for counted in (probed, watched))
        return ForwardResult(hidden, everything, tuple(refreshed), shadow, *counts)

    def rollout(self) -> Tensor:
        """Attention rollout of the last pass, float32 [batch, seq]; needs ``keep_rollout`` or ``keep_paid``."""
        return self._roll_out() if self._rolled_out is None else self._rolled_out

    def _roll_out(self, real: Tensor | None = None) -> Tensor:
        kept = self._attended.layers
        seen = [self._seen_by(layer, attention.rows) for layer, attention in enumerate(kept)]
        return attention_rollout(self.store, kept, self._valid.mask, seen, self.division, real)

    def attention_received(self, queries_of: Tensor) -> Tensor:
        """What each key received in the last pass, float32 [batch, layers, seq]; needs ``keep_paid``.

        Head-mean attention, averaged over the refreshed rows in ``queries_of``, bool [batch, seq]; 0 where none is.
        """
        return self._from_attention(queries_of, KeptAttention.received)

    def attention_scores(self, queries_of: Tensor) -> Tensor:
        """The same before the softmax: mean query times each key, float32 [batch, layers, seq]; ``keep_queries``."""
        return self._from_attention(queries_of, KeptAttention.scores)

    def _from_attention(self, queries_of: Tensor, combine: Callable[..., Tensor]) -> Tensor:
        kept = self._attended.layers
        seen = [self._seen_by(layer, attention.rows) for layer, attention in enumerate(kept)]
        return self.division.mean(received_or_scored(self.store, kept, seen, queries_of, combine))

    def keep(self, sequences: list[int]) -> None:
        """Forget all sequences but these (ascending), in every tensor that is held."""
        batch, seq = self._valid.mask.shape
        self.store.keep(sequences)
        index = numbers(sequences, self._valid.mask.device)
        self._hold(Visible(self._valid.mask.index_select(0, index), self._valid.on_host[sequences]))
        self._cosine = self._cosine.view(batch, seq, -1).index_select(0, index).flatten(0, 1)
        self._sine = self._sine.view(batch, seq, -1).index_select(0, index).flatten(0, 1)
        if self._pattern is not None:
            self._pattern.keep(index)
        self._attended.start()
        self._projections.keep(index)
        self._recorded = None if self._record is None else self._make_recorded(self._record)
        self._sight.forget()
        self.attention_drift = self.attention_drift[index]

    def admit(self, is_valid: Tensor) -> None:
        """Take up more sequences, bool [new, seq], in places that ``keep`` has just freed. Their padding is blank."""
        positions = rotary_positions(is_valid)
        cosine, sine = self.network.rotary(positions.flatten())
        self.store.admit(~is_valid)
        self._hold(self._valid.beside(Visible.of(is_valid)))
        self._cosine, self._sine = torch.cat((self._cosine, cosine)), torch.cat((self._sine, sine))
        self._projections.forget()
        if self._pattern is not None:
            self._pattern.admit(positions)
        self._recorded = None if self._record is None else self._make_recorded(self._record)
        self.attention_drift = self.attention_drift.new_full((self._valid.mask.shape[0],), torch.nan)

    def _carry(self, layer: int, hidden: Tensor, rows: RowSet) -> Tensor:
        """``hidden`` [batch * seq, width] behind a layer: ``rows`` are computed, what it added to the others stays."""
        outputs = self.store.layer_outputs(layer)
        if rows.count == 0:
            self.attention_drift = torch.full_like(self.attention_drift, torch.nan)
            self._attended.nothing(rows)
            return hidden + outputs
        output, feed_forward = partial(self.network.attention_output, layer), partial(self.network.feed_forward, layer)
        entered = rows.take(hidden)
        attended = computed(output, self._attention(layer, entered, self._rotary(rows), rows))
        between = entered + attended
        fed = computed(feed_forward, between)
        left = between + fed  # added one by one, as on the narrow path
        if rows.full:
            torch.add(attended, fed, out=outputs)
            return left
        rows.put(outputs, attended + fed)
        carried = hidden + outputs
        rows.put(carried, left)
        return carried

    def _start(
        self, tokens: Tensor, changed: RowSet | None, visible: Visible | None, watch: Tensor | None = None
    ) -> None:
        self._attended.start()
        self._rolled_out = None
        self._projections.start(tokens, changed)
        self.attention_drift = torch.full_like(self.attention_drift, torch.nan)
        self._visible = self._padding if visible is None else visible & self._valid
        self._seen = self._sight.look(self._visible, hides=visible is not None)
        if self._drift is not None:
            # padding pays nothing, or else a sequence would depend on how far it is padded
            self._drift.start(None if watch is None else watch & self._valid.mask)

    def _hold(self, valid: Visible) -> None:
        """Those of the sequences that are there now."""
        self._valid = valid
        self._padding = None if bool(valid.on_host.all()) else valid  # no mask at all is the fastest mask

    def _inference(self) -> AbstractContextManager[object]:
        """Fewer checks around each operation. What leaves it must not be handed to a plugin: it has no version."""
        return torch.inference_mode() if self._inference_mode and self.division.parts == 1 else nullcontext()

    def _make_recorded(self, record: Record) -> RecordedPasses:
        return RecordedPasses(record, self._layers, self._valid.mask)

    def _replays(self, rows: RowSet, visible: Visible | None) -> bool:
        """Whether nothing but tokens and rows differs from step to step."""
        fixed = visible is None and self._pattern is None and self.store.complete
        return fixed and not self._keep_hidden and self._drift is None and min(rows.counts) > 0

    def _layers(self, tokens: Tensor, rows: RowSet, real: Tensor) -> Made:
        """What a recorded pass does: final hidden states of ``rows``; queries and the rollout where they are kept."""
        self._attended.start()
        hidden, rotary = self.network.embed_rows(rows.take(tokens.flatten())), self._rotary(rows)
        for layer in range(self.spec.layers):
            hidden = self._through(layer, hidden, rotary, rows)
        queries = [kept.queries for kept in self._attended.layers if self._recalled and kept.queries is not None]
        return Made((hidden, *queries), (self._roll_out(real),) if self._keep_rollout else ())

    def _seen_by(self, layer: int, rows: RowSet) -> VisibleKeys:
        """What ``rows`` attend to in a layer."""
        seen = self._seen[layer]
        return seen if self._pattern is None or rows.count == 0 else self._pattern.by(layer, rows, seen)

    def _mask(self, layer: int) -> Tensor | None:
        """Keys that may be attended to in a layer, bool [batch, seq]; None: all."""
        mask = None if self._visible is None else self._visible.mask
        return mask if mask is None or mask.ndim == 2 else mask[:, layer]

    def _shadow(self, verify: RowSet | None) -> ShadowRows | None:
        if verify is None or verify.count == 0:
            return None
        return ShadowRows(self.network, verify, (self._cosine, self._sine), self._pattern)

    def _rotary(self, rows: RowSet) -> tuple[Tensor, Tensor]:
        return rows.take(self._cosine), rows.take(self._sine)

    def _through(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet) -> Tensor:
        """``hidden`` [rows, width] behind a layer, on the narrow path."""
        output, feed_forward = partial(self.network.attention_output, layer), partial(self.network.feed_forward, layer)
        hidden = added(hidden, output, self._attention(layer, hidden, rotary, rows), own=layer > 0)
        return added(hidden, feed_forward, hidden, own=True)

    def _attention(self, layer: int, hidden: Tensor, rotary: tuple[Tensor, Tensor], rows: RowSet) -> Tensor:
        if self._drift is not None:
            self._drift.before(layer, rows, self._mask(layer))
        queries = self._projections.project(layer, hidden, rotary, rows)
        if self._drift is not None:
            self.attention_drift = self._drift.after(layer, rows, queries, self._mask(layer))
        seen = self._seen_by(layer, rows)
        keys, values = self.store.attended(layer, seen)
        return self._attended.attend(queries, keys, values, rows, seen.mask)
