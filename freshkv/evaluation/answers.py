"""Where an answer ends: at the first end token, then at the first stop string."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence

from attrs import frozen
from transformers import PreTrainedTokenizerBase

from freshkv.compare.prompts import decode_response
from freshkv.core.network import NetworkSpec
from freshkv.models.token_ids import END_OF_TURN_TOKENS


@frozen
class Answer:
    """A response without what follows its end."""

    text: str
    tokens: int  #: response tokens that the text is made of; end tokens and stop strings do not count


def end_tokens(tokenizer: PreTrainedTokenizerBase, spec: NetworkSpec) -> frozenset[int]:
    """Ids that end an answer: end of text, and end of turn where the tokenizer has one."""
    vocabulary = tokenizer.get_vocab()
    turns = {vocabulary[name] for name in END_OF_TURN_TOKENS if name in vocabulary}
    return frozenset({spec.eos_token_id, tokenizer.eos_token_id, *turns} - {None})


def cut_answer(
    response: Sequence[int], tokenizer: PreTrainedTokenizerBase, ends: Collection[int], until: Sequence[str]
) -> Answer:
    """The answer in ``response``, token ids."""
    ends = {*ends, *_special_ids(tokenizer, until)}
    length = next((place for place, token in enumerate(response) if token in ends), len(response))
    kept = list(response[:length])
    whole = decode_response(tokenizer, kept)
    stop = min((place for text in until if (place := whole.find(text)) >= 0), default=None)
    if stop is None:
        return Answer(whole, length)
    text = whole[:stop]
    # the shortest run of tokens that spells the text; which grows with every token
    tokens = bisect_left(range(length), True, key=lambda n: decode_response(tokenizer, kept[:n]).startswith(text))
    return Answer(text, tokens)


def _special_ids(tokenizer: PreTrainedTokenizerBase, until: Sequence[str]) -> set[int]:
    """Stop strings that are special tokens: decoding leaves those out, and they would never be seen."""
    special = set(tokenizer.all_special_ids)
    vocabulary = tokenizer.get_vocab()
    return {vocabulary[text] for text in until if text in vocabulary and vocabulary[text] in special}
