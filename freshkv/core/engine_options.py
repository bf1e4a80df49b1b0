"""What an engine keeps for a policy."""

from __future__ import annotations

from freshkv.core.policy import CachePolicy, LayerwisePolicy

#: signals that are computed from what the rows of the last pass paid
_FROM_PAID = frozenset({"attention_rollout", "attention_received"})


def engine_options(policy: CachePolicy) -> dict[str, bool]:
    """What an engine must keep for ``policy``, besides keys and values."""
    return {
        "carried": isinstance(policy, LayerwisePolicy),
        "keep_queries": "attention_scores" in policy.needs,
        "keep_paid": bool(policy.needs & _FROM_PAID),
        "keep_inputs": isinstance(policy, LayerwisePolicy) and policy.probes == "hidden_states",
        "watch_attention": "attention_drift" in policy.needs,
    }
