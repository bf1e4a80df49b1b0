"""The largest logit and its place, looked for stretch by stretch."""

from __future__ import annotations

import math
from unittest.mock import patch

import torch
from hypothesis import given
from hypothesis import strategies as st

from freshkv.core import distribution
from freshkv.core.distribution import Distribution

#: few values, so that many are equal; and those that come of broken networks
LOGITS = st.sampled_from((-1.0, 0.0, 2.5, -math.inf, math.inf, math.nan))


@given(data=st.data(), rows=st.integers(1, 3), vocabulary=st.integers(1, 23), stretch=st.integers(1, 4))
def test_it_is_what_torch_finds(data: st.DataObject, rows: int, vocabulary: int, stretch: int) -> None:
    values = data.draw(st.lists(LOGITS, min_size=rows * vocabulary, max_size=rows * vocabulary))
    logits = torch.tensor(values).view(rows, vocabulary)
    expected, places = logits.max(dim=1)
    with patch.object(distribution, "STRETCH", stretch):
        found = Distribution(logits, torch.full((rows,), -math.inf), 0)
        torch.testing.assert_close(found._largest[0], expected, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(found.best, places)
