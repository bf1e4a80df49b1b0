"""Run a policy and, beside it on the same canvas, the uncached forward: how far what is cached is from the truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from freshkv.compare.drift_record import REGIONS, Drift, regions
from freshkv.compare.drift_summary import AGES, Deviation, DriftSummary
from freshkv.core.canvas import Canvas
from freshkv.core.decoder import Decoder
from freshkv.core.division import UNDIVIDED, division_of
from freshkv.core.errors import InputError
from freshkv.core.generate import run_canvas
from freshkv.core.loop import OnStep, RunOptions
from freshkv.core.network import Network
from freshkv.core.policy import CachePolicy
from freshkv.core.predict import logits_at
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.core.store import RowStore
from freshkv.core.trace import Trace
from freshkv.core.truth import Evidence, cosine_distance, relative_norm

__all__ = ["AGES", "REGIONS", "Deviation", "Drift", "DriftSummary", "measure_drift"]


def measure_drift(
    model: Network,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    policy: str | CachePolicy,
    decoder: str | Decoder = "confidence",
    gen_length: int = 128,
    block_length: int | None = None,
    seed: int = 0,
    on_step: OnStep | None = None,
    uncached: Trace | None = None,
) -> Drift:
    """Decode one prompt with ``policy``, comparing every step with the uncached forward on the same canvas.

    Tokens are the most probable ones (temperature 0): what differs is then due to the cache. The whole takes the time
    of three runs: the policy's, the uncached forward beside it, and an independent uncached run.

    Args:
        model: as for ``freshkv.generate``.
        input_ids: long [1, prompt]; one sequence, whose drift is what is measured.
        attention_mask: bool or 0/1 [1, prompt], 0 at padding. None: no padding.
        policy: a name, ``"name:field=value,..."``, or a CachePolicy.
        decoder: likewise a Decoder.
        gen_length: response positions.
        block_length: positions decoded before the next block opens. None: one block.
        seed: of the random numbers that some decoders draw.
        on_step: called with the record of every step as it is done.
        uncached: the trace of the independent uncached run on the same prompt, decoder, lengths and seed, where it is
            at hand already. None: it is decoded first (``on_step`` does not hear of it).

    Raises what ``freshkv.generate`` raises, and InputError for more than one prompt.
    """
    chosen, decode = resolve_policy(policy), resolve_decoder(decoder)
    spec = model.network_spec
    canvas = Canvas.create(input_ids, attention_mask, gen_length, block_length, spec, model.device)
    if canvas.batch != 1:
        raise InputError(f"measure_drift got {canvas.batch} prompts; expected one: input_ids[:1].")

    def options(policy: CachePolicy) -> RunOptions:
        return RunOptions(policy=policy, decoder=decode, sampling=Sampling(), seeds=(seed,))

    if uncached is None:
        uncached = run_canvas(model, canvas, options(resolve_policy("none"))).trace
    meter = _Meter(model, canvas)
    trace = run_canvas(model, canvas, options(chosen), on_step, meter.compare).trace
    return Drift(
        policy=chosen.spec,
        decoder=decode.spec,
        prompt_length=canvas.prompt_length,
        tokens=torch.cat([step.tokens for step in trace]),
        uncached_tokens=torch.cat([step.tokens for step in uncached]),
        facts=trace.facts,
        **meter.tensors(),
    )


class _Meter:
    """Turns the evidence of each step into the rows of a Drift."""

    def __init__(self, network: Network, canvas: Canvas) -> None:
        self._network, self._canvas = network, canvas
        self._steps: list[dict[str, Tensor]] = []

    def tensors(self) -> dict[str, Tensor]:
        """All steps so far, by name of the Drift's field."""
        return {name: torch.stack([step[name] for step in self._steps]) for name in self._steps[0]}

    def compare(self, evidence: Evidence) -> None:
        """Measure one step of the only sequence."""
        state = evidence.state
        step = {
            **self._caches(evidence),
            **self._predictions(evidence),
            "refreshed": torch.stack([rows.mask[0] for rows in evidence.result.refreshed]) & state.is_valid[0],
            "committed": evidence.commit.positions[0],
            "region": regions(
                state.tokens[0], state.is_masked[0], state.in_block[0], state.is_valid[0], self._canvas.prompt_length
            ),
        }
        self._steps.append({name: tensor.to("cpu", copy=True) for name, tensor in step.items()})

    def _caches(self, evidence: Evidence) -> dict[str, Tensor]:
        """float32 [layers, seq] for each kind of vector and measure."""
        held, true = evidence.store, evidence.truth.store
        padding = ~evidence.state.is_valid[0]
        found: dict[str, list[Tensor]] = {}
        for layer in range(self._network.network_spec.layers):
            for kind, mine in _vectors(held, layer).items():
                division = UNDIVIDED if kind == "hidden" else division_of(self._network)
                for measure, distance in (("cosine", cosine_distance), ("norm", relative_norm)):
                    value = distance(mine, _vectors(true, layer)[kind], division).float()
                    found.setdefault(f"{kind}_{measure}", []).append(value.masked_fill(padding, torch.nan))
        return {name: torch.stack(layers) for name, layers in found.items()}

    def _predictions(self, evidence: Evidence) -> dict[str, Tensor]:
        """float32 [seq] for each figure of the predicted positions, and which commits were wrong."""
        positions, commit = evidence.predict, evidence.commit
        mask = self._network.network_spec.mask_token_id
        run = logits_at(self._network, evidence.result, positions[0].nonzero()[:, 0])
        true = evidence.truth.logits(positions)
        log_true, log_run = true.log_softmax(dim=1), run.log_softmax(dim=1)
        kl = (log_true.exp() * (log_true - log_run)).sum(dim=1).clamp(min=0)  # float32 [predicted]; below 0 is rounding
        run[:, mask] = true[:, mask] = -torch.inf  # the mask token is never proposed
        best = true.argmax(dim=1)
        committed = commit.positions & positions
        wrong = torch.zeros_like(positions)
        wrong[positions] = commit.tokens[positions] != best
        confidence = evidence.predicted.confidence[positions]
        return {
            "kl": _place(kl, positions),
            "top1": _place((run.argmax(dim=1) == best).float(), positions),
            "confidence": _place(confidence, positions),
            "committed_wrong": (wrong & committed)[0],
        }


def _vectors(store: RowStore, layer: int) -> dict[str, Tensor]:
    """[seq, elements] of the only sequence, for each kind."""
    return {
        "keys": store.keys(layer)[0].flatten(1),
        "values": store.values(layer)[0].flatten(1),
        "hidden": store.hidden(layer),
    }


def _place(values: Tensor, positions: Tensor) -> Tensor:
    """float32 [seq]: ``values`` [n] at the n True of ``positions``, bool [1, seq]; NaN elsewhere."""
    canvas: Any = torch.full(positions.shape, torch.nan, device=positions.device)
    canvas[positions] = values
    placed: Tensor = canvas[0]
    return placed
