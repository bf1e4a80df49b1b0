"""Hashes that tell requests apart: the same key means the same result, on any run, process and batch."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b, sha256
from typing import Any


def key_of(*facts: Any) -> str:
    """64 hexadecimal digits from JSON values."""
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def seed_of(*facts: Any) -> int:
    """A seed from JSON values, 0 to 2^63 - 1: a request's random numbers do not depend on its neighbours."""
    return int.from_bytes(blake2b(json.dumps(facts).encode(), digest_size=8).digest()) >> 1


def count_occurrences(items: Sequence[Any]) -> list[int]:
    """For each item, how many equal ones come before it: a request that is repeated draws anew."""
    seen: dict[Any, int] = defaultdict(int)
    occurrences = []
    for item in items:
        occurrences.append(seen[item])
        seen[item] += 1
    return occurrences
