"""Trajectories recorded from published code, as arguments of ``freshkv.generate`` and what must come out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from attrs import frozen
from safetensors.torch import load_file
from torch import Tensor

import freshkv

GOLDEN = Path(__file__).parent / "golden"

POLICIES = {
    "none": "none",
    "prefix": "prefix",
    "dual": "dual",
    "dllm83": "dllm:kp=8,kr=3,rou=0.25",
    "dllm11": "dllm:kp=1,kr=1",
    "dllm83r0": "dllm:kp=8,kr=3,rou=0",
    "d2w0": "d2cache:current_k=8",
    "d2w4": "d2cache:current_k=8,inflate_w=4",
}
RENAMED = {
    "gamma": "gamma",
    "kl_threshold": "kl_threshold",
    "kl_history_length": "kl_history",
    "wide_in_thres": "wide_in",
    "narrow_out_thres": "narrow_out",
}
SCORES = {"maskgit_plus": "confidence", "topk_margin": "margin", "entropy": "entropy"}


@cache
def network(folder: Path) -> Any:
    """The tiny random model of a folder."""
    return freshkv.load(folder)


@frozen
class GoldenCase:
    """One recorded run."""

    path: Path  #: without suffix

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def parts(self) -> list[str]:
        return self.path.name.split("__")

    @property
    def strategy(self) -> str:
        return self.parts[0]

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.with_suffix(".json").read_text())
        return found

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.path.with_suffix(".safetensors"))

    @property
    def policy(self) -> str:
        return POLICIES[self.parts[1].removesuffix("_cp10")]

    @property
    def decoder(self) -> str:
        arguments = self.settings["generate_kwargs"]
        fields = [f"tokens_per_step={arguments.get('num_transfer_tokens', 1)}"]
        if "sigma" in arguments:
            fields.append(f"prior_sigma={arguments['sigma']}")
        if "alg" in arguments:
            fields.append(f"score={SCORES[arguments['alg']]}")
        name = {"ar": "autoregressive", "vanilla": "confidence"}.get(self.strategy, self.strategy)
        fields += [f"{ours}={arguments[theirs]}" for theirs, ours in RENAMED.items() if theirs in arguments]
        if "gamma" in arguments:
            name = "entropy-bound"
        if "threshold" in arguments:
            fields.append(f"threshold={arguments['threshold']}")
            name = "threshold" if name == "confidence" else name
        return f"{name}:{','.join(fields)}"

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``freshkv.generate``."""
        arguments = self.settings["generate_kwargs"]
        tensors = self.tensors
        mask = tensors.get("attention_mask")
        return {
            "input_ids": tensors["input_ids"].long(),
            "attention_mask": None if mask is None else mask.bool(),
            "policy": self.policy,
            "decoder": self.decoder,
            "gen_length": arguments["gen_length"],
            "block_length": arguments["block_length"],
            "top_k": arguments.get("top_k"),
            "stop_at_eos": arguments.get("stop_until_eos", False),
            "eos_token_id": arguments.get("eos_token_id"),
        }


def cases(*strategies: str) -> Iterator[GoldenCase]:
    """The recorded cases of these strategies."""
    for path in sorted(GOLDEN.glob("*/*__*.json")):
        case = GoldenCase(path.with_suffix(""))
        if case.strategy in strategies:
            yield case


def own_steps(active: Tensor) -> list[int]:
    """The passes, in order, that one sequence took part in: the recording waits for the batch, freshkv does not."""
    return active.nonzero()[:, 0].tolist()
