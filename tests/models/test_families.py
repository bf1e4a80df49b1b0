"""Every family against Transformers' own implementation of the same weights, with the attention that it stands for."""

from __future__ import annotations

import json

import pytest
import torch

import freshkv
from freshkv.core.errors import CheckpointError
from freshkv.core.network import Network
from freshkv.models import families, load, published_defaults
from tests.models.families import VARIANTS, make, of_transformers


@pytest.fixture(params=list(VARIANTS))
def variant(request):
    return request.param


def tokens_and_padding(pads=(0, 3, 8), seq=13):
    tokens = torch.randint(58, (len(pads), seq), generator=torch.Generator().manual_seed(5))
    return tokens, torch.arange(seq)[None] >= torch.tensor(pads)[:, None]


def attention_mask_of(spec, valid):
    """0 where a row sees a key, float [batch, 1, seq, seq]: the pattern written out, one pair at a time."""
    batch, seq = valid.shape
    mask = torch.full((batch, 1, seq, seq), torch.finfo(torch.float32).min)
    for sequence in range(batch):
        first = int(valid[sequence].long().argmax())
        for row in range(seq):
            for key in range(first, seq):
                block = spec.block_causal
                if block is None or (key - first) // block <= max(row - first, 0) // block:
                    mask[sequence, 0, row, key] = 0
    return mask


def transformers_logits(variant, network, tokens, valid):
    """What Transformers makes of the same weights, positions counted from the first valid token."""
    other, convert = of_transformers(variant)
    other.eval().load_state_dict(convert(network.state_dict()))
    if variant == "modernbert":
        return other(tokens, attention_mask=valid.long()).logits
    positions = (valid.long().cumsum(dim=1) - 1).clamp(min=0)
    mask = attention_mask_of(network.network_spec, valid)
    return other(tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits


@torch.no_grad()
def test_logits_are_those_of_transformers(variant):
    network = make(variant)
    tokens, valid = tokens_and_padding()
    found = network(tokens, valid.long()).logits
    torch.testing.assert_close(
        found[valid], transformers_logits(variant, network, tokens, valid)[valid], atol=1e-4, rtol=0
    )
    alone = network(tokens[1:2, 3:]).logits
    torch.testing.assert_close(found[1:2, 3:], alone, atol=1e-4, rtol=0)


def test_a_family_follows_the_protocol(variant):
    assert isinstance(make(variant), Network)


@torch.no_grad()
def test_a_row_does_not_depend_on_the_rows_packed_with_it(variant):
    network = make(variant).double()
    hidden = torch.randn(9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    positions, chosen = torch.tensor([5, 0, 0, 3, 900, 2, 7, 7, 1]), torch.tensor([4, 0, 7])

    def compute(inputs, at):
        queries, keys, values = network.project(1, inputs, network.rotary(at))
        added = network.attention_output(1, queries)
        return queries, keys, values, added, network.feed_forward(1, inputs), network.logits(inputs)

    for whole, part in zip(compute(hidden, positions), compute(hidden[chosen], positions[chosen]), strict=True):
        torch.testing.assert_close(whole[chosen], part, atol=1e-12, rtol=1e-12)
    assert torch.equal(network.project_values(1, hidden), compute(hidden, positions)[2])


@torch.no_grad()
def test_shapes_are_those_of_the_protocol(variant):
    network, rows = make(variant), 4
    spec = network.network_spec
    hidden = network.embed_rows(torch.arange(rows))
    queries, keys, values = network.project(0, hidden, network.rotary(torch.arange(rows)))
    assert hidden.shape == (rows, spec.width)
    assert queries.shape == (rows, spec.heads, spec.head_width)
    assert keys.shape == values.shape == (rows, spec.kv_heads, spec.head_width)
    assert network.logits(hidden).shape == (rows, spec.vocabulary)


def test_a_saved_network_loads_as_it_was(variant, tmp_path):
    network = make(variant)
    network.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded) is type(network)
    assert loaded.network_spec == network.network_spec
    tokens, valid = tokens_and_padding()
    assert torch.equal(loaded(tokens, valid.long()).logits, network(tokens, valid.long()).logits)


SPECS = {
    "qwen2": (1, None), "a2d-qwen2": (0, None), "qwen3": (1, None), "a2d-qwen3": (0, None), "llama": (1, None),
    "a2d-llama": (0, None), "sdar": (0, 4), "llada2_moe": (0, 32), "Fast_dLLM_Qwen": (1, 32), "lladamoe": (0, None),
    "llada": (0, None), "Dream": (1, None), "modernbert": (0, None),
}  # fmt: skip


def test_every_family_is_in_the_list_of_shifts_and_blocks():
    assert SPECS.keys() == families().keys()


@pytest.mark.parametrize(("model_type", "spec"), SPECS.items())
def test_shift_and_blocks_follow_from_the_family(model_type, spec):
    config = families()[model_type].config_class()
    assert (getattr(config, "logits_shift", 0), getattr(config, "block_causal", None)) == spec


def test_an_argument_overrides_shift_and_blocks(tmp_path):
    make("qwen3").save_pretrained(tmp_path)
    assert (load(tmp_path).network_spec.logits_shift, load(tmp_path).network_spec.block_causal) == (1, None)
    spec = load(tmp_path, logits_shift=0, block_causal=8).network_spec
    assert (spec.logits_shift, spec.block_causal) == (0, 8)
    assert load(tmp_path, logits_shift=0, block_causal=8)(torch.tensor([[1, 2]])).logits.isfinite().all()


@pytest.mark.parametrize(("options", "complaint"), [
    ({"logits_shift": 2}, "logits_shift is 2; expected 0"),
    ({"block_causal": 0}, "block_causal is 0; expected a number"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu', which freshkv does not implement"),
    ({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "layer_types": None},
     "layer_types has sliding_attention"),
    ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
     "type 'dynamic' is not implemented"),
])  # fmt: skip
def test_what_is_not_implemented_is_refused(options, complaint, tmp_path):
    make("qwen3").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=complaint):
        load(tmp_path, **options)


@pytest.mark.parametrize("field", ["moe_router_enable_expert_bias", "norm_topk_prob", "attention_bias"])
def test_llada_moe_refuses_what_it_does_not_implement(field):
    with pytest.raises(CheckpointError, match=f"{field} is True, which freshkv does not implement"):
        make("llada-moe", **{field: True})


def test_an_official_llada_moe_is_told_from_a_dense_one_by_its_architecture(tmp_path):

    make("llada-moe").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert type(load(tmp_path)).__name__ == "LLaDAMoEModelLM"


def test_a_shared_expert_adds_to_the_chosen_ones():
    network, plain = make("llada-moe", shared_expert_intermediate_size=12), make("llada-moe")
    plain.load_state_dict(
        {name: tensor for name, tensor in network.state_dict().items() if "shared_expert" not in name}
    )
    hidden = torch.randn(5, 32)
    layer = network.layers[1]
    shared = layer.shared_expert(layer.post_attention_layernorm(hidden))
    expected = plain.feed_forward(1, hidden) + shared
    torch.testing.assert_close(network.feed_forward(1, hidden), expected)
    assert network.network_spec.feed_forward_width == plain.network_spec.feed_forward_width + 12


@pytest.mark.parametrize("policy", ["none", "dual", "d2cache:current_k=2", "dllm:kp=3,kr=2"])
def test_policies_run(variant, policy):
    tokens, valid = tokens_and_padding(pads=(0, 2), seq=5)
    network = make(variant)
    block = 4 if network.network_spec.block_causal is None else None
    run = freshkv.generate(network, tokens, valid, policy=policy, gen_length=8, block_length=block)
    assert not (run.responses == 58).any()


def test_block_causal_networks_are_published_with_their_own_blocks():
    assert published_defaults(make("sdar"), instruct=True).block_length is None
    assert published_defaults(make("qwen3"), instruct=True).block_length == 32
