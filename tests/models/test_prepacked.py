"""Prepacked weights give what plain ones give, can be saved, and say no to what they cannot do."""

import copy

import pytest
import torch
from torch import nn

import freshkv
from freshkv.core.engine import Engine
from freshkv.core.errors import InputError
from freshkv.core.naive import NaiveExecutor
from freshkv.core.rows import RowSet
from freshkv.models.prepacked import PrepackedLinear, PrepackedWeight, joined, prepack, products
from tests.models.families import VARIANTS, make
from tests.models.layouts import LAYOUTS, needs_compiled

PRECISION = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def prepacked(network, layout=True):
    changed = copy.deepcopy(network)
    prepack(changed, layout)
    return changed


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
@pytest.mark.parametrize("biases", [(False, False), (True, True), (True, False)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 7, 32, 200])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_products_side_by_side_are_those_of_each_layer(dtype, biases, rows, layout):
    needs_compiled(layout, dtype)
    linears = [nn.Linear(24, outputs, bias=bias).to(dtype) for outputs, bias in zip((40, 16), biases, strict=True)]
    weight = PrepackedWeight(linears, layout)
    parts = [PrepackedLinear(weight, part) for part in range(2)]
    hidden = torch.randn(rows, 24).to(dtype)
    expected = [linear(hidden).detach() for linear in linears]
    near = {"rtol": PRECISION[dtype], "atol": PRECISION[dtype]}
    torch.testing.assert_close(products(hidden, *parts), tuple(expected), **near)
    torch.testing.assert_close(joined(hidden, *parts), torch.cat(expected, dim=1), **near)
    # one of them alone, and in an order that was not prepared, are right as well
    torch.testing.assert_close([part(hidden) for part in parts], expected, **near)
    torch.testing.assert_close(joined(hidden, parts[1]), expected[1], **near)
    torch.testing.assert_close(products(hidden, *reversed(parts)), tuple(reversed(expected)), **near)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_family_computes_the_same_on_both_paths(variant, layout):
    needs_compiled(layout)
    network = make(variant)
    packed, spec = prepacked(network, layout), network.network_spec
    kinds = [module for module in packed.modules() if isinstance(module, PrepackedLinear)]
    assert len(kinds) >= 4 * spec.layers - 1
    valid = torch.tensor([[False] * 3 + [True] * 6, [True] * 9])
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(0))
    some = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    narrow, carried, naive = Engine(packed, valid), Engine(packed, valid, carried=True), NaiveExecutor(network, valid)
    for rows in (torch.ones_like(some), some):
        found = narrow.narrow(tokens, RowSet.of(rows)).hidden
        every = carried.carried(tokens, lambda layer, movement, rows=rows: rows).hidden.unflatten(0, tokens.shape)
        expected = naive.step(tokens, [rows] * spec.layers)
        for mine, own in ((found, rows), (every[rows], rows)):
            seen = valid[own]
            near = 1e-4 * expected[own][seen].abs().max().item()
            torch.testing.assert_close(mine[seen], expected[own][seen], rtol=0, atol=near)
        tokens = torch.where(rows, (tokens + 1) % 50, tokens)


@pytest.mark.parametrize("name", ["tiny-llada", "tiny-dream"])
@pytest.mark.parametrize("policy", sorted(freshkv.policies()))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_model_loaded_so_decodes_the_same_tokens(name, policy, layout):
    needs_compiled(layout)
    prompt = torch.randint(14, (2, 12), generator=torch.Generator().manual_seed(2))
    options = {"policy": policy, "gen_length": 16, "block_length": 8}
    plain, packed = (freshkv.load(name, prepacked=choice) for choice in (False, layout))
    first, second = (freshkv.generate(model, prompt, **options) for model in (plain, packed))
    assert torch.equal(first.sequences, second.sequences)
    assert first.stats.rows_computed == second.stats.rows_computed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_saved_is_the_plain_checkpoint(tmp_path, layout):
    needs_compiled(layout)
    plain, packed = freshkv.load("tiny-dream"), freshkv.load("tiny-dream", prepacked=layout)
    before, after = plain.state_dict(), packed.state_dict()
    assert sorted(before) == sorted(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    packed.save_pretrained(tmp_path)
    again = freshkv.load(tmp_path).state_dict()
    assert all(torch.equal(before[name], again[name]) for name in before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_weights_are_held_once(layout):
    """What is left as parameters and what was packed are together what there was."""
    needs_compiled(layout)
    network = make("qwen3-biases")
    before = sum(parameter.numel() for parameter in network.parameters())
    packed = prepacked(network, layout)
    weights = {id(m.product): m.product for m in packed.modules() if isinstance(m, PrepackedLinear)}.values()
    moved = sum(w.weight_of(part).numel() for w in weights for part in range(len(w.outputs)))
    biases = [w.bias_of(part) for w in weights for part in range(len(w.outputs))]
    moved += sum(bias.numel() for bias in biases if bias is not None)
    assert sum(parameter.numel() for parameter in packed.parameters()) + moved == before
    sizes = sorted(len(w.outputs) for w in weights)
    assert sizes == [1] * (3 * 3 + 1) + [2] * (2 * 3)  # values, output, down; head; queries with keys, gate with up


def test_a_tied_head_stays_as_it_is():
    packed = prepacked(make("qwen2-tied"))
    assert packed.head.weight is packed.embedding.weight
    assert isinstance(packed.layers[0].mlp.down_proj, PrepackedLinear)


def test_what_cannot_be_prepacked_is_refused():
    with pytest.raises(InputError, match=r"float32 and bfloat16 on the CPU; this model's weights are float64 on cpu"):
        freshkv.load("tiny-llada", dtype="float64", prepacked=True)
    packed = freshkv.load("tiny-llada", prepacked=True)
    with pytest.raises(InputError, match=r"float32 on the CPU and cannot become float64 on cpu. Load the model again"):
        packed.double()
    assert packed.to("cpu") is packed
    with pytest.raises(InputError, match=r"prepacked='onednn' is unknown. It is False, True or 'compiled'"):
        freshkv.load("tiny-llada", prepacked="onednn")
