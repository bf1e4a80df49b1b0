"""The kit passes for all that freshkv itself has."""

from __future__ import annotations

import pytest

from freshkv.core.decoder import Decoder
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import builtin_classes
from freshkv.testing import DecoderContract, PolicyContract
from freshkv.testing.conformance.kit import Kit
from freshkv.testing.conformance.partners import Uneven
from freshkv.testing.conformance.policy_checks import POLICY_CHECKS
from freshkv.testing.conformance.subject import Subject

EXACT = {
    "none": "none",
    "dllm": "dllm:kp=1,kr=1",
    "d2cache": "d2cache:current_k=100,rollout_p=1",
    "frontier": "frontier:refresh_every=1",
    "oracle": "oracle:budget=1",
    "random": "random:budget=1",
}

for _name in builtin_classes("freshkv.policies", CachePolicy):
    _options = {"policy": _name, "exact": EXACT.get(_name), "examples": 4, "__module__": __name__}
    globals()[f"TestPolicy_{_name}"] = type(f"TestPolicy_{_name}", (PolicyContract,), _options)
for _name in builtin_classes("freshkv.decoders", Decoder):
    _options = {"decoder": _name, "examples": 4, "__module__": __name__}
    globals()[f"TestDecoder_{_name}"] = type(f"TestDecoder_{_name}", (DecoderContract,), _options)


class TestSpecWithOptions(PolicyContract):
    policy = "dllm:kp=3,kr=2"
    examples = 2


class TestDecoderObject(DecoderContract):
    decoder = Uneven()
    examples = 2


@pytest.mark.parametrize("given", ["dual", "d2cache:current_k=2"])
def test_a_bare_name_means_any_options_and_a_spec_those_it_gives(given: str) -> None:
    kit = Kit(Subject.of(given, "policy"), POLICY_CHECKS)
    assert kit.subject.fixed == (":" in given)
