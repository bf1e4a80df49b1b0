"""What a run gives back: sequences, trace, and counters."""

from __future__ import annotations

from attrs import frozen
from torch import Tensor

from freshkv.core.axes import SEQ
from freshkv.core.cost import Cost
from freshkv.core.trace import Trace


@frozen(kw_only=True)
class RunStats:
    """Counters and measurements of one run."""

    forwards: int  #: forward passes
    rows_computed: int  #: over all passes, mean over layers; of the whole model, also where processes share it
    tokens_committed: int  #: response positions that hold a decided token at the end, all sequences
    tokens_produced: int  #: response tokens up to and including the first EOS (all of them where none stops the run)
    seconds: float  #: wall-clock time of the decoding, without loading and checking
    peak_bytes: int  #: CUDA: most memory allocated; CPU: most memory resident in the process during the run
    cache_bytes: int  #: size of the cached tensors in this process
    cost: Cost  #: operations and bytes of the whole model, whatever the machine

    @property
    def tokens_per_forward(self) -> float:
        """Committed tokens a forward pass."""
        return self.tokens_committed / self.forwards if self.forwards > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Produced response tokens a second; the prompt and what follows an EOS do not count."""
        return self.tokens_produced / self.seconds if self.seconds > 0 else 0.0


@frozen(kw_only=True, eq=False)
class Run:
    """The result of ``generate``."""

    sequences: (
        Tensor  #: long [batch, prompt + gen_length], on the model's device; masks after an EOS are filled with EOS
    )
    trace: Trace
    stats: RunStats
    produced: Tensor  #: long [batch]; response tokens up to and including the first EOS, if the run stops there

    @property
    def responses(self) -> Tensor:
        """long [batch, gen_length]: the sequences without their prompts."""
        return self.sequences[:, self.trace.prompt_length :]


def count_produced(response: Tensor, eos_token_id: int | None) -> Tensor:
    """long [batch]: tokens of ``response`` [batch, gen_length] up to and including the first EOS."""
    length = response.shape[SEQ]
    if eos_token_id is None:
        return response.new_full((response.shape[0],), length)
    before_end = (response == eos_token_id).long().cumsum(dim=SEQ) == 0
    return (before_end.sum(dim=SEQ) + 1).clamp(max=length)


def without_masks(response: Tensor, mask_token_id: int, eos_token_id: int | None) -> Tensor:
    """``response``, long [batch, gen_length], with EOS for the masks that are left, if it ends a sequence."""
    return response if eos_token_id is None else response.masked_fill(response == mask_token_id, eos_token_id)
