"""Weights that Transformers quantises while it loads them: every policy runs, and both paths equal the naive one."""

from __future__ import annotations

import pytest
import torch

import freshkv
from freshkv.core.engine import Engine
from freshkv.core.errors import InputError, UnknownNameError
from freshkv.core.naive import NaiveExecutor
from freshkv.core.rows import RowSet
from freshkv.models import quantisation
from freshkv.models.quantisation import QUANTISATIONS
from tests.models.conftest import make_dream, make_llada
from tests.models.families import make

#: every width is a multiple of 64, the largest group of weights that share a scale
SIZES = {
    "llada": lambda: make_llada(d_model=64, mlp_hidden_size=128),
    "dream": lambda: make_dream(hidden_size=64, intermediate_size=128),
    "llada2": lambda: make("llada2", hidden_size=64, intermediate_size=64, moe_intermediate_size=64),
    "modernbert": lambda: make("modernbert", hidden_size=64, intermediate_size=64),
}


@pytest.fixture(params=list(QUANTISATIONS))
def name(request):
    pytest.importorskip(QUANTISATIONS[request.param])
    return request.param


@pytest.fixture(params=list(SIZES))
def plain(request):
    """A network of each family."""
    return SIZES[request.param]()


@pytest.fixture
def loaded(plain, name, tmp_path):
    """The same, quantised while it was loaded."""
    plain.save_pretrained(tmp_path)
    return freshkv.load(tmp_path, quantization_config=name)


def largest_linear(network):
    kinds = (module for module in network.modules() if isinstance(module, torch.nn.Linear))
    return max(kinds, key=lambda module: module.in_features * module.out_features)


def precision(network):
    """Of the linear layers: bitsandbytes' kernel for the CPU answers in bfloat16, whatever it is given."""
    linear = largest_linear(network)
    answer = linear(torch.randn(64, linear.in_features, generator=torch.Generator().manual_seed(3)))
    return 2**-8 if torch.equal(answer, answer.bfloat16().to(answer.dtype)) else 2**-23


def test_every_policy_runs_and_paths_agree(loaded, plain):
    spec = loaded.network_spec
    assert spec == plain.network_spec
    prompts = torch.randint(30, (2, 5), generator=torch.Generator().manual_seed(0))
    padding = torch.tensor([[0, 0, 1, 1, 1], [1] * 5])
    for policy in freshkv.policies():
        run = freshkv.generate(loaded, prompts, padding, policy=policy, gen_length=4, block_length=4)
        assert not (run.responses == spec.mask_token_id).any()
    valid = torch.cat((padding.bool(), torch.ones(2, 4, dtype=torch.bool)), dim=1)
    tokens = torch.cat((prompts, torch.full((2, 4), spec.mask_token_id)), dim=1)
    some = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    narrow, carried, naive = Engine(loaded, valid), Engine(loaded, valid, carried=True), NaiveExecutor(loaded, valid)
    for rows in (torch.ones_like(some), some):
        found = narrow.narrow(tokens, RowSet.of(rows)).hidden
        every = carried.carried(tokens, lambda layer, movement, rows=rows: rows).hidden
        expected = naive.step(tokens, [rows] * spec.layers)[rows]
        near = max(1e-5, 4 * precision(loaded)) * expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=near)
        torch.testing.assert_close(every.unflatten(0, tokens.shape)[rows], found, rtol=0, atol=near)
        tokens = torch.where(rows, (tokens + 1) % 30, tokens)


def test_weights_are_smaller_and_nearly_the_same(loaded, plain, name):
    weight = largest_linear(loaded).weight
    assert type(weight) is not torch.nn.Parameter, "the largest linear layer was left as it was"
    hidden = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    exact, found = plain.project_values(1, hidden), loaded.project_values(1, hidden)
    error = (found - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 0 < error < (0.02 if "8" in name else 0.2)


def test_a_quantised_network_can_be_saved_and_loaded(loaded, tmp_path):
    loaded.save_pretrained(tmp_path / "quantised")
    again = freshkv.load(tmp_path / "quantised")
    hidden = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(again.project_values(1, hidden), loaded.project_values(1, hidden))


def test_an_unknown_name_is_refused(tmp_path):
    make_llada().save_pretrained(tmp_path)
    with pytest.raises(UnknownNameError, match=r"Unknown quantisation 'int9'. Did you mean 'int8'"):
        freshkv.load(tmp_path, quantization_config="int9")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    make_llada().save_pretrained(tmp_path)
    monkeypatch.setattr(quantisation, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"'nf4' needs bitsandbytes, which is not installed.*freshkv\[quantised\]"):
        freshkv.load(tmp_path, quantization_config="nf4")
