"""Sequences that stand at the same point are asked together; here their answers come together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import frozen
from torch import Tensor

from freshkv.core.axes import BATCH
from freshkv.core.decoder import Commit, Prediction
from freshkv.core.plan import StepPlan
from freshkv.core.predict import Wanted
from freshkv.core.selection import Selection
from freshkv.core.uploads import numbers, uploaded


@frozen(eq=False)
class Groups:
    """A partition of the batch. ``places[g]`` are the sequences of group g; most of the time there is one group."""

    places: tuple[tuple[int, ...], ...]

    @property
    def single(self) -> bool:
        """Whether all sequences stand at the same point: nothing is to be moved then."""
        return len(self.places) == 1

    def split(self, tensor: Tensor) -> list[Tensor]:
        """[batch, ...] to one [group, ...] for each group."""
        if self.single:
            return [tensor]
        return [tensor.index_select(BATCH, numbers(places, tensor.device)) for places in self.places]

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """The inverse of ``split``."""
        if self.single:
            return parts[0]
        order = numbers([place for places in self.places for place in places], parts[0].device)
        return torch.cat(list(parts)).index_select(BATCH, order.argsort())

    def split_prediction(self, prediction: Prediction, wanted: Wanted) -> list[Prediction]:
        """One prediction for each group, of the positions ``wanted`` inside the active blocks."""
        if self.single:
            return [prediction]
        owners, parts = wanted.owners(), []
        for places in self.places:
            index = numbers(places, prediction.positions.device)
            # within a group sequences keep their order, so that packed rows keep theirs
            packed = uploaded(torch.isin(owners, torch.tensor(places)).nonzero()[:, 0], index.device)
            parts.append(
                Prediction(
                    positions=prediction.positions.index_select(BATCH, index),
                    tokens=prediction.tokens.index_select(BATCH, index),
                    confidence=prediction.confidence.index_select(BATCH, index),
                    verified=prediction.verified.index_select(BATCH, index),
                    divergence=prediction.divergence.index_select(BATCH, index),
                    noise=prediction.noise.index_select(BATCH, index),
                    distribution=prediction.distribution.take(packed),
                )
            )
        return parts

    def merge_optional(self, parts: Sequence[Tensor | None], like: Sequence[Tensor], *, missing: bool) -> Tensor | None:
        """``merge`` for masks that some groups left out: those are all ``missing``. None where all did."""
        if all(part is None for part in parts):
            return None
        masks = [
            torch.full_like(mask, missing) if part is None else part for part, mask in zip(parts, like, strict=True)
        ]
        layers = max((mask.shape[1] for mask in masks if mask.ndim == 3), default=None)
        if layers is not None:  # what holds for all layers holds for each
            masks = [mask if mask.ndim == 3 else mask[:, None].expand(-1, layers, -1) for mask in masks]
        return self.merge(masks)

    def merge_plans(self, plans: Sequence[StepPlan], memory: Mapping[str, Tensor]) -> StepPlan:
        """One plan for the whole batch; a mask that a group left out allows everything (visible) or nothing (watch).

        ``memory`` is what the policy had the core remember so far: a group that does not name a tensor again keeps it.
        """
        if self.single:
            return plans[0]
        rows = [plan.rows for plan in plans]
        return StepPlan(
            rows=self.merge(rows),
            predict=self.merge([plan.predict for plan in plans]),
            added=self.merge([plan.added for plan in plans]),
            due=self.merge([plan.due for plan in plans]),
            visible=self.merge_optional([plan.visible for plan in plans], rows, missing=True),
            watch=self.merge_optional([plan.watch for plan in plans], rows, missing=False),
            selection=Selection(
                predict=self.merge([plan.selection.predict for plan in plans]),
                remember=self._merge_memory([plan.selection.remember for plan in plans], memory),
            ),
        )

    def merge_commits(self, commits: Sequence[Commit], memory: Mapping[str, Tensor]) -> Commit:
        """One commit for the whole batch; ``memory`` is the decoder's so far, as in ``merge_plans``."""
        if self.single:
            return commits[0]
        positions = [commit.positions for commit in commits]
        return Commit(
            positions=self.merge(positions),
            tokens=self.merge([commit.tokens for commit in commits]),
            remask=self.merge_optional([commit.remask for commit in commits], positions, missing=False),
            remember=self._merge_memory([commit.remember for commit in commits], memory),
        )

    def _merge_memory(self, answers: list[Mapping[str, Tensor]], memory: Mapping[str, Tensor]) -> dict[str, Tensor]:
        merged = {}
        for name in sorted({name for answer in answers for name in answer}):
            fresh = next(answer[name] for answer in answers if name in answer)
            batch = sum(len(places) for places in self.places)
            before = memory[name] if name in memory else fresh.new_zeros((batch, *fresh.shape[1:]))
            kept = self.split(before)
            merged[name] = self.merge([answer.get(name, old) for answer, old in zip(answers, kept, strict=True)])
        return merged
