"""From a line-up to the policies and decoders that run."""

from __future__ import annotations

from freshkv.compare.experiment import Entry, Experiment
from freshkv.compare.lineup import Entrant, Lineup
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import policies, resolve_policy
from freshkv.core.spec import build, split_spec


def entries_of(experiment: Experiment, task: str, lineup: Lineup | None) -> tuple[Entry, ...]:
    """What decodes the problems of ``task``: all entries of the experiment where there is no line-up."""
    if lineup is None:
        return experiment.entries
    return tuple(
        Entry(policy, decoder)
        for decoder in experiment.decoders
        for policy in {
            entrant.policy: policy_of(entrant, experiment) for entrant in lineup.setting(task, decoder.spec).entrants
        }.values()
    )


def policy_of(entrant: Entrant, experiment: Experiment) -> CachePolicy:
    """The policy of an entrant: one of the experiment's, the same with another budget, or a reference."""
    known = {policy.spec: policy for policy in experiment.policies}
    if entrant.role != "policy" or entrant.given not in known:
        return resolve_policy(entrant.policy)
    given = known[entrant.given]
    if entrant.policy == entrant.given:
        return given
    # by its class, not by its name: a policy that is handed over as an object need not be registered
    return build(type(given), split_spec(entrant.policy)[1], entrant.policy)


def class_of(spec: str) -> type[CachePolicy] | None:
    """The class that a spec string names; None if it is not installed here, as results may come from elsewhere."""
    return policies().get(split_spec(spec)[0])
