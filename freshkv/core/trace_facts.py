"""What a trace needs to be understood and run again, besides its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from freshkv.core.loop import RunOptions
from freshkv.core.network import Network
from freshkv.core.policy import LayerwisePolicy
from freshkv.core.version import VERSION


def trace_facts(
    model: Network,
    options: RunOptions,
    *,
    gen_length: int,
    block_length: int,
    padding: Sequence[int],
    seeds: Sequence[int],
    eos_token_id: int | None,
) -> dict[str, Any]:
    """JSON values. ``padding`` (columns) and ``seeds`` have one for each sequence of the trace."""
    sampling = options.sampling
    return {
        "freshkv": VERSION,
        "torch": torch.__version__,
        "policy": options.policy.spec,
        "decoder": options.decoder.spec,
        "gen_length": gen_length,
        "block_length": block_length,
        "dtype": str(model.dtype).removeprefix("torch."),
        "carried": isinstance(options.policy, LayerwisePolicy),
        "signals": sorted(options.policy.needs),
        "padding": list(padding),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "seeds": list(seeds),
        "eos_token_id": eos_token_id,
    }
