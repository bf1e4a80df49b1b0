"""What an engine keeps for a policy."""

from __future__ import annotations

from freshkv.core.policy import CachePolicy, LayerwisePolicy


def engine_options(policy: CachePolicy) -> dict[str, bool]:
    """What an engine must keep for ``policy``, besides keys and values."""
    return {
        "carried": isinstance(policy, LayerwisePolicy),
        "keep_queries": "attention_scores" in policy.needs,
        "keep_paid": "attention_received" in policy.needs,
        "keep_rollout": "attention_rollout" in policy.needs,
        "keep_inputs": isinstance(policy, LayerwisePolicy) and policy.probes == "hidden_states",
        "watch_attention": "attention_drift" in policy.needs,
    }
