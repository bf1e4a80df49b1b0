"""The runs that something is checked in: problems, and the decoders or policies that go with it."""

from __future__ import annotations

import torch
from attrs import frozen
from hypothesis import strategies as st

from freshkv.core.decoder import Commit, Decoder, Prediction
from freshkv.core.policy import CachePolicy
from freshkv.core.registry import builtin_classes, resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.core.selection import Selection
from freshkv.core.view import StepView
from freshkv.testing.networks import NetworkShape
from freshkv.testing.problems import Problem
from freshkv.testing.strategies import left_padded

#: few, so that each is built once
SHAPES = (
    NetworkShape(layers=2, head_width=4, vocabulary=12, mask_token_id=11),
    NetworkShape(family="dream", layers=2, head_width=4, vocabulary=12, mask_token_id=0, seed=1),
    NetworkShape(family="dream", layers=3, heads=4, kv_heads=2, head_width=4, mask_token_id=16, seed=2),
    NetworkShape(layers=1, heads=2, kv_heads=1, mask_token_id=0, seed=3),
)


@frozen
class Uneven(Decoder):
    """A sequence commits as many tokens as its first token says: sequences drift apart and finish apart."""

    name = "uneven"

    def decode(self, view: StepView, prediction: Prediction) -> Commit:
        """One to three of the leftmost predicted positions."""
        first_token = view.tokens.gather(1, view.is_valid.long().argmax(dim=1, keepdim=True))
        count = prediction.positions.long().cumsum(dim=1)
        return Commit(prediction.positions & (count <= 1 + first_token % 3), prediction.tokens)


@frozen
class EveryOther(CachePolicy):
    """Predicts every other position of the active block, so that a decoder finds gaps among its choices."""

    name = "every-other"

    def select(self, view: StepView) -> Selection:
        """Everything at first, then odd and even places of the response in turns, and what was committed."""
        place = view.is_response.long().cumsum(dim=1)
        return Selection(predict=view.in_block & ((place + view.step) % 2 == 0), refresh=view.dirty)


def any_decoder() -> st.SearchStrategy[Decoder]:
    """Fixed and adaptive numbers of tokens, final and revocable, sequences at one pace and not."""
    specs = ("confidence", "confidence:tokens_per_step=2", "threshold:threshold=0.3", "wino:wide_in=0.1,narrow_out=0.3")
    return st.sampled_from((*map(resolve_decoder, specs), Uneven()))


def any_final_decoder() -> st.SearchStrategy[Decoder]:
    """Those that never take back what they committed."""
    return any_decoder().filter(lambda decoder: not decoder.revocable)


def built_in_policies() -> tuple[CachePolicy, ...]:
    """With default options, and such as leave much out."""
    names = sorted(builtin_classes("freshkv.policies", CachePolicy))  # type: ignore[type-abstract]
    specs = (*names, "d2cache:current_k=2,rollout_p=0", "dllm:kp=3,kr=3,rou=0.5")
    return tuple(map(resolve_policy, specs))


def any_policy() -> st.SearchStrategy[CachePolicy]:
    """Every built-in policy, and one that predicts with gaps."""
    return st.sampled_from((*built_in_policies(), EveryOther()))


@st.composite
def any_problem(
    draw: st.DrawFn,
    *,
    batch: tuple[int, int] = (1, 3),
    padded: bool = True,
    sampled: bool = True,
    eos: bool = True,
) -> Problem:
    """Small prompts and responses. The response has at least one block of two positions."""
    shape = draw(st.sampled_from(SHAPES))
    sequences, prompt, block_length = draw(st.integers(*batch)), draw(st.integers(2, 5)), draw(st.integers(2, 4))
    padding = draw(st.tuples(*[st.integers(0, prompt - 1)] * sequences)) if padded else (0,) * sequences
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    ends = [token for token in range(0, shape.vocabulary, 3) if token != shape.mask_token_id]
    return Problem(
        shape=shape,
        input_ids=torch.randint(0, shape.vocabulary, (sequences, prompt), generator=generator),
        is_valid=left_padded(padding, prompt),
        gen_length=block_length * draw(st.integers(1, 2)),
        block_length=block_length,
        seeds=draw(st.tuples(*[st.integers(0, 2**16)] * sequences)),
        sampling=Sampling(temperature=draw(st.sampled_from((0.0, 1.5)))) if sampled else Sampling(),
        eos_token_id=draw(st.sampled_from((None, *ends))) if eos else None,
    )


def describe(problem: Problem, policy: CachePolicy, decoder: Decoder) -> str:
    """A run in one line."""
    plural = "s" if problem.batch > 1 else ""
    padding = [problem.padding(sequence) for sequence in range(problem.batch)]
    parts = [
        f"policy '{policy.spec}', decoder '{decoder.spec}'",
        f"a random {problem.shape.family} network of {problem.shape.layers} layers",
        f"{problem.batch} prompt{plural} of {problem.prompt_length} columns (padding {padding})",
        f"{problem.gen_length} response positions in blocks of {problem.block_length}",
    ]
    if problem.sampling.temperature > 0:
        parts.append(f"temperature {problem.sampling.temperature}")
    if problem.eos_token_id is not None:
        parts.append("stopping at EOS")
    return ", ".join(parts) + "."
