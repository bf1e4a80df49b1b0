"""What plugin authors test with: the conformance kit, hypothesis strategies, tiny random networks, and wrappers.

Needs ``hypothesis``, and ``pytest`` for the contracts (``pip install 'freshkv[testing]'``); nothing else of freshkv
imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freshkv.testing.examples import asked, columns, example_problem
from freshkv.testing.networks import NetworkShape, tiny_network
from freshkv.testing.problems import Problem
from freshkv.testing.watched import WatchedNetwork
from freshkv.testing.wrapping import refreshing_everything, wrapped

if TYPE_CHECKING:
    from freshkv.testing.contract import DecoderContract, PolicyContract

__all__ = [
    "DecoderContract",
    "NetworkShape",
    "PolicyContract",
    "Problem",
    "WatchedNetwork",
    "asked",
    "columns",
    "example_problem",
    "refreshing_everything",
    "tiny_network",
    "wrapped",
]


def __getattr__(name: str) -> Any:
    # the contracts need pytest, the rest does not
    if name not in ("DecoderContract", "PolicyContract"):
        raise AttributeError(f"module 'freshkv.testing' has no attribute '{name}'")
    from freshkv.testing import contract

    return getattr(contract, name)
