"""A network and prompts: everything of a run besides policy, decoder and sampling."""

from __future__ import annotations

from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from freshkv.core.canvas import Canvas
from freshkv.core.decoder import Decoder
from freshkv.core.generate import run_canvas
from freshkv.core.loop import OnStep, RunOptions
from freshkv.core.network import Network
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.run import Run
from freshkv.core.sampling import Sampling
from freshkv.core.visible import Gathering
from freshkv.testing.networks import NetworkShape, tiny_network


@frozen(kw_only=True, eq=False)
class Problem:
    """Prompts for a tiny network, to be decoded by any policy and decoder."""

    shape: NetworkShape
    input_ids: Tensor  #: long [batch, prompt]; any token, the mask token and EOS among them
    is_valid: Tensor = field()  #: bool [batch, prompt]; False at left padding
    gen_length: int
    block_length: int  #: divides ``gen_length``
    seeds: tuple[int, ...]  #: one for each sequence
    sampling: Sampling = field(factory=Sampling)
    eos_token_id: int | None = None  #: None: a run does not stop at EOS

    @property
    def network(self) -> Network:
        """The network of ``shape``."""
        return tiny_network(self.shape)

    @property
    def batch(self) -> int:
        """Sequences."""
        return self.input_ids.shape[0]

    @property
    def prompt_length(self) -> int:
        """Columns left of the response, padding included."""
        return self.input_ids.shape[1]

    def padding(self, sequence: int) -> int:
        """Columns of padding before a sequence."""
        return int((~self.is_valid[sequence]).sum())

    def alone(self, sequence: int) -> Problem:
        """One sequence by itself, without its padding."""
        start = self.padding(sequence)
        return self.evolve(
            input_ids=self.input_ids[sequence : sequence + 1, start:],
            is_valid=self.is_valid[sequence : sequence + 1, start:],
            seeds=self.seeds[sequence : sequence + 1],
        )

    def only(self, sequence: int) -> Problem:
        """One sequence by itself, with its padding."""
        mine = slice(sequence, sequence + 1)
        return self.evolve(input_ids=self.input_ids[mine], is_valid=self.is_valid[mine], seeds=self.seeds[mine])

    def padded(self, columns: int) -> Problem:
        """The same prompts with more padding, which holds token 1."""
        padding = self.is_valid.new_zeros((self.batch, columns))
        return self.evolve(
            input_ids=torch.cat((padding.long() + 1, self.input_ids), dim=1),
            is_valid=torch.cat((padding, self.is_valid), dim=1),
        )

    def refilled(self) -> Problem:
        """The same prompts, with other tokens in their padding."""
        other = (self.input_ids * 5 + 2) % self.shape.vocabulary
        return self.evolve(input_ids=torch.where(self.is_valid, self.input_ids, other))

    def evolve(self, **changes: Any) -> Problem:
        """The same problem with other fields."""
        import attrs

        return attrs.evolve(self, **changes)

    def run(
        self,
        policy: str | CachePolicy = "none",
        decoder: str | Decoder = "confidence",
        *,
        network: Network | None = None,
        poison: bool = True,
        gathering: Gathering = "auto",
        inference_mode: bool = True,
        plan_ahead: bool | None = None,
        reuse_projections: bool = False,
        on_step: OnStep | None = None,
    ) -> Run:
        """Decode it. ``network`` stands in for the problem's own; ``poison`` fills fresh caches with NaN;
        ``gathering`` says when visible keys are copied side by side, ``inference_mode`` whether layers run in torch's,
        ``plan_ahead`` whether the policy is asked early, ``reuse_projections`` is that of ``generate``.
        """
        model = self.network if network is None else network
        canvas = Canvas.create(
            self.input_ids,
            self.is_valid,
            self.gen_length,
            self.block_length,
            model.network_spec,
            model.device,
            self.eos_token_id,
        )
        options = RunOptions(
            policy=resolve_policy(policy),
            decoder=resolve_decoder(decoder),
            sampling=self.sampling,
            seeds=self.seeds,
            poison=poison,
            gathering=gathering,
            inference_mode=inference_mode,
            plan_ahead=plan_ahead,
            reuse_projections=reuse_projections,
        )
        return run_canvas(model, canvas, options, on_step)
