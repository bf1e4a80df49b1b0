"""What is wrong with the arguments of ``generate`` is said before any work: what, where, expected, what next."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import evolve

import freshkv
from freshkv.core.errors import FreshkvError, InputError
from freshkv.core.network import NetworkSpec
from freshkv.testing import NetworkShape, WatchedNetwork, tiny_network

PROMPT = torch.tensor([[1, 2, 3], [4, 5, 6]])


def generate(**changes: Any) -> freshkv.Run:
    """A run that is fine but for ``changes``, on a network that must not be reached if they are wrong."""
    arguments = {"input_ids": PROMPT, "gen_length": 4, "block_length": 2, **changes}
    network = arguments.pop("model", WatchedNetwork(tiny_network(NetworkShape())))
    try:
        return freshkv.generate(network, **arguments)
    except FreshkvError:
        if isinstance(network, WatchedNetwork):
            assert not network.rows, "the error came after work was done"
        raise


def test_the_arguments_that_the_others_are_changed_from_are_fine() -> None:
    assert generate().sequences.shape == (2, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": PROMPT.float()}, r"input_ids has dtype float32; expected int64"),
        ({"input_ids": PROMPT.bool()}, r"input_ids has dtype bool; expected int64"),
        ({"input_ids": PROMPT.tolist()}, r"input_ids is a list; expected a long tensor \[batch, prompt\]"),
        ({"input_ids": "a prompt"}, r"input_ids is a str"),
        ({"input_ids": PROMPT[0]}, r"shape \(3,\); expected \[batch, prompt\].*batch of one: input_ids\[None\]"),
        ({"input_ids": PROMPT[None]}, r"shape \(1, 2, 3\); expected \[batch, prompt\]"),
        ({"input_ids": PROMPT[:, :0]}, r"shape \(2, 0\); expected at least one prompt of one token"),
        ({"input_ids": PROMPT[:0]}, r"shape \(0, 3\); expected at least one prompt of one token"),
        ({"input_ids": PROMPT + 30}, r"token id 36; the model's vocabulary is 0 to 32.*another model's tokenizer"),
        ({"input_ids": PROMPT - 2}, r"token id -1; the model's vocabulary is 0 to 32"),
        (
            {"attention_mask": torch.ones(2, 4)},
            r"attention_mask is \(2, 4\); expected the shape of input_ids, \(2, 3\)",
        ),
        ({"attention_mask": torch.ones(3)}, r"attention_mask is \(3,\); expected the shape of input_ids"),
        ({"attention_mask": [[1, 1, 1]] * 2}, r"attention_mask is list; expected"),
        ({"attention_mask": torch.tensor([[1, 1, 1], [0, 2, 1]])}, r"values other than 0 and 1"),
        ({"attention_mask": torch.full((2, 3), float("nan"))}, r"values other than 0 and 1"),
        (
            {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])},
            r"right of a token in sequences \[1\].*padded on the left.*padding_side",
        ),
        ({"attention_mask": torch.tensor([[1, 0, 1], [1, 1, 1]])}, r"right of a token in sequences \[0\]"),
        ({"attention_mask": torch.tensor([[1, 1, 1], [0, 0, 0]])}, r"leaves no token at all in sequences \[1\]"),
        ({"gen_length": 0}, r"gen_length is 0; expected a whole number of at least 1"),
        ({"gen_length": -3}, r"gen_length is -3"),
        ({"gen_length": 4.0}, r"gen_length is 4\.0; expected a whole number"),
        ({"gen_length": True}, r"gen_length is True"),
        ({"block_length": 0}, r"block_length is 0; expected a whole number of at least 1"),
        ({"block_length": 3}, r"block_length 3 does not divide gen_length 4\. The nearest that does is [24]; None"),
        ({"block_length": 8}, r"block_length 8 does not divide gen_length 4\. The nearest that does is 4"),
        ({"temperature": -0.5}, r"temperature is -0\.5; expected a finite number of at least 0"),
        ({"temperature": float("nan")}, r"temperature is nan"),
        ({"temperature": float("inf")}, r"temperature is inf"),
        ({"temperature": "warm"}, r"temperature is 'warm'; expected"),
        ({"top_k": 0}, r"top_k is 0; expected at least 1, or None for all tokens"),
        ({"top_k": 2.5}, r"top_k is 2\.5; expected"),
        ({"top_p": 0.0}, r"top_p is 0\.0; expected a number in \(0, 1\], or None"),
        ({"top_p": 1.1}, r"top_p is 1\.1"),
        ({"top_p": float("nan")}, r"top_p is nan"),
        ({"seed": [1, 2, 3]}, r"seed has 3 numbers for 2 sequences; expected one for all, or one for each"),
        ({"seed": []}, r"seed has 0 numbers for 2 sequences"),
        ({"seed": None}, r"seed is None; expected"),
        ({"seed": 1.5}, r"seed is 1\.5; expected"),
        ({"stop_at_eos": True, "eos_token_id": 33}, r"eos_token_id is 33; the model's vocabulary is 0 to 32"),
        ({"stop_at_eos": True, "eos_token_id": -1}, r"eos_token_id is -1"),
        ({"stop_at_eos": True, "eos_token_id": 32}, r"eos_token_id is 32.*mask token"),
        ({"model": "tiny-llada"}, r"model is .*str.*freshkv\.load"),
    ],
    ids=lambda value: str(value).replace("\n", " ")[:60] if isinstance(value, dict) else "",
)
def test_a_wrong_argument_is_an_input_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate(**changes)


class WithoutEos(WatchedNetwork):
    @property
    def network_spec(self) -> NetworkSpec:
        return evolve(super().network_spec, eos_token_id=None)


def test_stopping_at_eos_needs_an_eos_token() -> None:
    model = WithoutEos(tiny_network(NetworkShape()))
    with pytest.raises(
        InputError, match=r"stop_at_eos needs an EOS token, and the model names none: pass eos_token_id"
    ):
        generate(model=model, stop_at_eos=True)
    assert generate(model=model, stop_at_eos=True, eos_token_id=5).sequences.shape == (2, 7)
    assert generate(model=model).sequences.shape == (2, 7)


@pytest.mark.parametrize("mask", [PROMPT > 0, (PROMPT > 0).long(), (PROMPT > 0).float(), None])
def test_a_mask_may_be_bool_or_numbers(mask: torch.Tensor | None) -> None:
    assert torch.equal(generate(attention_mask=mask).sequences, generate().sequences)


def test_int32_tokens_are_as_good_as_int64() -> None:
    assert torch.equal(generate(input_ids=PROMPT.int()).sequences, generate().sequences)


def test_generate_works_within_inference_mode() -> None:
    with torch.inference_mode():
        inside = generate(policy="d2cache:current_k=1")
    assert torch.equal(inside.sequences, generate(policy="d2cache:current_k=1").sequences)


def test_the_prompt_may_come_from_inference_mode() -> None:
    with torch.inference_mode():
        prompt = PROMPT + 0
    assert torch.equal(generate(input_ids=prompt).sequences, generate().sequences)
