"""Hypothesis strategies: networks, problems, row sets and spec strings.

Sizes and options are drawn by hypothesis, so that failures shrink; the contents of tensors come from a drawn seed,
which is much quicker.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from freshkv.core.sampling import Sampling
from freshkv.testing.networks import FAMILIES, NetworkShape
from freshkv.testing.problems import Problem

#: (query heads, key and value heads)
HEADS = ((1, 1), (2, 2), (2, 1), (4, 2))


@st.composite
def network_shapes(draw: st.DrawFn, *, double: bool | None = True, max_layers: int = 3) -> NetworkShape:
    """Both families, grouped-query attention or not, any place of the mask token; ``double`` None: either dtype."""
    heads, kv_heads = draw(st.sampled_from(HEADS))
    vocabulary = draw(st.sampled_from((12, 33, 60)))
    return NetworkShape(
        family=draw(st.sampled_from(FAMILIES)),
        layers=draw(st.integers(1, max_layers)),
        heads=heads,
        kv_heads=kv_heads,
        head_width=draw(st.sampled_from((4, 8))),
        vocabulary=vocabulary,
        mask_token_id=draw(st.sampled_from((0, vocabulary // 2, vocabulary - 1))),
        double=draw(st.booleans()) if double is None else double,
        seed=draw(st.integers(0, 3)),
    )


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    """Greedy half of the time, with and without filters."""
    return Sampling(
        temperature=draw(st.sampled_from((0.0, 0.0, 0.5, 1.0, 3.0))),
        top_k=draw(st.sampled_from((None, None, 1, 3, 10, 1000))),
        top_p=draw(st.sampled_from((None, None, 0.2, 0.8, 1.0))),
    )


@st.composite
def problems(
    draw: st.DrawFn, *, max_batch: int = 3, max_blocks: int = 3, double: bool | None = True, greedy: bool = False
) -> Problem:
    """Left-padded prompts of any tokens for a tiny network, blocks of any length, sampling, EOS or not."""
    shape = draw(network_shapes(double=double))
    batch, prompt_length = draw(st.integers(1, max_batch)), draw(st.integers(1, 5))
    block_length = draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return Problem(
        shape=shape,
        input_ids=torch.randint(0, shape.vocabulary, (batch, prompt_length), generator=generator),
        is_valid=left_padded(draw(st.tuples(*[st.integers(0, prompt_length - 1)] * batch)), prompt_length),
        gen_length=block_length * draw(st.integers(1, max_blocks)),
        block_length=block_length,
        seeds=draw(st.tuples(*[st.integers(0, 2**16)] * batch)),
        sampling=Sampling() if greedy else draw(samplings()),
        eos_token_id=draw(st.sampled_from((None, shape.eos_token_id, *_some_tokens(shape)))),
    )


def _some_tokens(shape: NetworkShape) -> list[int]:
    return [token for token in range(0, shape.vocabulary, 3) if token != shape.mask_token_id]


def left_padded(padding: tuple[int, ...], length: int) -> Tensor:
    """bool [batch, length]: False in the first ``padding`` columns of each sequence."""
    return torch.arange(length)[None, :] >= torch.tensor(padding)[:, None]


@st.composite
def row_masks(draw: st.DrawFn, *shape: int) -> Tensor:
    """bool [*shape] with any share of True, from none to all."""
    share = draw(st.sampled_from((0.0, 0.15, 0.5, 0.85, 1.0)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return torch.rand(shape, generator=generator) < share


@st.composite
def schedules(draw: st.DrawFn, steps: int, *shape: int) -> list[Tensor]:
    """One mask, bool [*shape], for each of ``steps`` steps."""
    return [draw(row_masks(*shape)) for _ in range(steps)]


@st.composite
def visible_masks(draw: st.DrawFn, is_valid: Tensor, layers: int | None = None) -> Tensor | None:
    """Keys that may be attended to, bool as ``is_valid`` [batch, seq], at least one valid one a sequence; or None.

    With ``layers``, it may also differ by layer: bool [batch, layers, seq].
    """
    kind = draw(st.sampled_from(("all", "alike") if layers is None else ("all", "alike", "layered")))
    if kind == "all":
        return None
    if kind == "layered":
        return torch.stack([draw(_visible_mask(is_valid)) for _ in range(layers or 0)], dim=1)
    return draw(_visible_mask(is_valid))


@st.composite
def _visible_mask(draw: st.DrawFn, is_valid: Tensor) -> Tensor:
    batch, seq = is_valid.shape
    visible = draw(row_masks(batch, seq))
    visible[torch.arange(batch), draw(st.tuples(*[st.sampled_from(_true_columns(row)) for row in is_valid]))] = True
    return visible


def _true_columns(row: Tensor) -> list[int]:
    return row.nonzero()[:, 0].tolist()
