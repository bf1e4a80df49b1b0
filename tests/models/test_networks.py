"""Both families against the recorded forward passes, and the adapter protocol against the plain forward pass."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_file

from freshkv.core.errors import InputError
from freshkv.core.network import Network
from freshkv.models import load

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def recorded_forward(golden):
    return load_file(golden / "forward.safetensors")


def recorded_network(golden, dtype=torch.float32):
    return load(golden, dtype=dtype)


def random_tokens(network, *shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(network.network_spec.vocabulary, shape, generator=generator)


def attend_by_definition(queries, keys, values, visible):
    """Softmax of scaled products, written out: [batch, seq, heads, width] and bool [batch, seq] of keys."""
    shared_by = queries.shape[2] // keys.shape[2]
    keys, values = (heads.repeat_interleave(shared_by, dim=2) for heads in (keys, values))
    scores = torch.einsum("bqhw,bkhw->bhqk", queries, keys) / math.sqrt(queries.shape[-1])
    scores = scores.masked_fill(~visible[:, None, None, :], -torch.inf)
    return torch.einsum("bhqk,bkhw->bqhw", scores.softmax(dim=-1), values)


def run_through_protocol(network, tokens, visible):
    """Hidden states entering each layer and leaving the last, and logits, by the seven functions of the protocol."""
    canvas, positions = tokens.shape, (visible.long().cumsum(dim=1) - 1).clamp(min=0)
    hidden, rotary = network.embed_rows(tokens.flatten()), network.rotary(positions.flatten())
    states = [hidden]
    for layer in range(network.network_spec.layers):
        heads = (part.unflatten(0, canvas) for part in network.project(layer, hidden, rotary))
        hidden = hidden + network.attention_output(layer, attend_by_definition(*heads, visible).flatten(0, 1))
        hidden = hidden + network.feed_forward(layer, hidden)
        states.append(hidden)
    return [state.unflatten(0, canvas) for state in states], network.logits(hidden).unflatten(0, canvas)


# Against the recordings


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_are_the_recorded_ones(golden, attention):
    recorded = recorded_forward(golden)
    logits = recorded_network(golden)(recorded["input_ids"]).logits
    torch.testing.assert_close(logits, recorded[f"logits_{attention}_f32"], atol=1e-4, rtol=0)


def test_padded_logits_are_the_recorded_ones_at_valid_rows(golden):
    recorded = recorded_forward(golden)
    valid = recorded["attention_mask"].bool()
    logits = recorded_network(golden)(recorded["padded_input_ids"], valid).logits
    torch.testing.assert_close(logits[valid], recorded["padded_logits_eager_f32"][valid], atol=1e-4, rtol=0)
    alone = recorded["row1_unpadded_logits_eager_f32"][0]
    torch.testing.assert_close(logits[1][valid[1]], alone, atol=1e-4, rtol=0)


def test_hidden_states_are_the_recorded_ones_layer_by_layer(golden):
    recorded, network = recorded_forward(golden), recorded_network(golden)
    tokens = recorded["input_ids"].long()
    states, _ = run_through_protocol(network, tokens, torch.ones_like(tokens, dtype=torch.bool))
    states[-1] = network.final_norm(states[-1])
    torch.testing.assert_close(torch.stack(states), recorded["hidden_states_eager_f32"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "margin"), [(torch.bfloat16, 2.0), (torch.float16, 0.5)])
def test_half_precision_is_about_as_far_from_float32_as_the_recording(golden, dtype, margin):
    # bfloat16 rounds the residual stream in every layer, so any two implementations differ by their rounding noise
    # (single logits by 0.8); its size over all logits is what can be compared. float16 has 8 times finer steps.
    recorded = recorded_forward(golden)
    exact = recorded["logits_eager_f32"]
    logits = recorded_network(golden, dtype)(recorded["input_ids"]).logits
    assert logits.dtype == dtype
    noise, recorded_noise = (
        (found - exact).square().mean().sqrt() for found in (logits, recorded["logits_eager_bf16"])
    )
    assert noise < margin * recorded_noise


def test_float64_agrees_with_the_recorded_float32(golden):
    recorded = recorded_forward(golden)
    logits = recorded_network(golden, torch.float64)(recorded["input_ids"]).logits
    torch.testing.assert_close(logits, recorded["logits_eager_f32"].double(), atol=1e-4, rtol=0)


# The protocol


def test_a_family_follows_the_network_protocol(network):
    assert isinstance(network, Network)
    spec = network.network_spec
    assert network.network_spec is spec
    assert (spec.layers, spec.heads, spec.head_width, spec.width, spec.feed_forward_width) == (2, 4, 8, 32, 48)


def test_specs_name_tokens_and_shift(llada, dream):
    spec = llada(n_kv_heads=2).network_spec
    assert (spec.vocabulary, spec.mask_token_id, spec.eos_token_id, spec.kv_heads, spec.logits_shift) == (
        44,
        41,
        42,
        2,
        0,
    )
    spec = dream().network_spec
    assert (spec.vocabulary, spec.mask_token_id, spec.eos_token_id, spec.kv_heads, spec.logits_shift) == (
        40,
        38,
        39,
        2,
        1,
    )
    assert dream(eos_token_id=None).network_spec.eos_token_id is None


def test_the_protocol_gives_the_forward_pass(network):
    tokens = random_tokens(network, 3, 11)
    valid = torch.arange(11) >= torch.tensor([[0], [4], [9]])
    _, logits = run_through_protocol(network, tokens, valid)
    torch.testing.assert_close(network(tokens, valid).logits[valid], logits[valid], atol=1e-5, rtol=1e-4)


def test_a_row_does_not_depend_on_the_rows_packed_with_it(network):
    network.double()
    rows = 9
    hidden = torch.randn(rows, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    positions = torch.tensor([5, 0, 0, 3, 900, 2, 7, 7, 1])
    chosen = torch.tensor([4, 0, 7])

    def compute(inputs, at):
        queries, keys, values = network.project(1, inputs, network.rotary(at))
        added = network.attention_output(1, queries)
        return queries, keys, values, added, network.feed_forward(1, inputs), network.logits(inputs)

    for whole, part in zip(compute(hidden, positions), compute(hidden[chosen], positions[chosen]), strict=True):
        torch.testing.assert_close(whole[chosen], part, atol=1e-12, rtol=1e-12)


def test_values_alone_are_the_values_of_the_projection(network):
    hidden = torch.randn(7, 32)
    *_, values = network.project(0, hidden, network.rotary(torch.arange(7)))
    assert torch.equal(network.project_values(0, hidden), values)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_shapes_and_dtypes_are_those_of_the_protocol(make_network, dtype, rows):
    network = make_network(dtype=None).to(dtype)
    spec = network.network_spec
    hidden = network.embed_rows(random_tokens(network, rows))
    rotary = network.rotary(torch.arange(rows))
    queries, keys, values = network.project(0, hidden, rotary)
    kv_shape = (rows, spec.kv_heads, spec.head_width)
    assert hidden.shape == (rows, spec.width)
    assert [table.shape for table in rotary] == [(rows, spec.head_width)] * 2
    assert [table.dtype for table in rotary] == [torch.float64 if dtype == torch.float64 else torch.float32] * 2
    assert (queries.shape, keys.shape, values.shape) == ((rows, spec.heads, spec.head_width), kv_shape, kv_shape)
    assert network.project_values(0, hidden).shape == kv_shape
    assert network.attention_output(0, queries).shape == (rows, spec.width)
    assert network.feed_forward(0, hidden).shape == (rows, spec.width)
    assert network.logits(hidden).shape == (rows, spec.vocabulary)
    assert network.dtype == dtype
    results = (hidden, queries, keys, values, network.attention_output(0, queries), network.feed_forward(0, hidden))
    assert {result.dtype for result in (*results, network.logits(hidden))} == {dtype}


# The forward pass


def test_padding_changes_nothing(network):
    network.double()
    tokens = random_tokens(network, 1, 8)
    alone = network(tokens).logits
    for pads in (1, 5):
        padded = torch.cat((random_tokens(network, 1, pads, seed=3), tokens), dim=1)
        mask = torch.arange(8 + pads)[None] >= pads
        for attention_mask in (mask, mask.long()):
            torch.testing.assert_close(network(padded, attention_mask).logits[:, pads:], alone, atol=1e-10, rtol=1e-10)


def test_a_sequence_does_not_depend_on_its_batch(network):
    network.double()
    tokens = random_tokens(network, 3, 8)
    alone = torch.cat([network(row[None]).logits for row in tokens])
    torch.testing.assert_close(network(tokens).logits, alone, atol=1e-10, rtol=1e-10)


def test_a_sequence_of_padding_alone_leaves_the_others_finite(make_network):
    network = make_network()
    mask = torch.tensor([[False] * 6, [True] * 6])
    assert network(random_tokens(network, 2, 6), mask).logits[1].isfinite().all()


def test_attention_looks_both_ways(make_network):
    network = make_network()
    tokens = random_tokens(network, 1, 8)
    changed = tokens.clone()
    changed[0, 4] = (tokens[0, 4] + 1) % network.network_spec.vocabulary
    moved = (network(tokens).logits != network(changed).logits).any(dim=-1)
    assert moved.all()


def test_inputs_are_not_changed(make_network):
    network = make_network()
    tokens, mask = random_tokens(network, 2, 6), torch.tensor([[0, 1, 1, 1, 1, 1], [1] * 6])
    before = tokens.clone(), mask.clone()
    network(tokens, mask)
    assert torch.equal(tokens, before[0])
    assert torch.equal(mask, before[1])


def test_one_prompt_without_a_batch_axis_is_refused(make_network):
    with pytest.raises(InputError, match=r"input_ids has shape \(3,\); expected \[batch, seq\]"):
        make_network()(torch.tensor([1, 2, 3]))


def test_a_mask_of_another_shape_is_refused(make_network):
    with pytest.raises(InputError, match=r"attention_mask has shape \(1, 4\); expected that of input_ids, \(1, 3\)"):
        make_network()(torch.tensor([[1, 2, 3]]), torch.ones(1, 4))


# As a Transformers model


def test_gradients_reach_every_parameter_even_after_inference(network):
    tokens = random_tokens(network, 2, 6)
    with torch.inference_mode():
        network(tokens)
    network.train()(tokens).logits.square().mean().backward()
    without = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


def test_a_network_compiles_to_one_graph(make_network):
    network = make_network()
    tokens, mask = random_tokens(network, 2, 6), torch.tensor([[0, 1, 1, 1, 1, 1], [1] * 6])
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens, mask).logits, network(tokens, mask).logits)


def test_rotary_survives_casts_and_copies(make_network):
    network = make_network()
    positions = torch.tensor([0, 1, 4000])
    before = network.rotary(positions)
    half = copy.deepcopy(network).to(torch.bfloat16)
    for table, kept in zip(half.rotary(positions), before, strict=True):
        assert torch.equal(table, kept)
    assert not any("rotary" in name for name in network.state_dict())


def test_random_weights_are_usable(make_network):
    network = make_network()
    assert network.embedding.weight.std().item() == pytest.approx(0.2, rel=0.1)
    assert network.final_norm.weight.eq(1).all()
    assert network(random_tokens(network, 1, 4)).logits.isfinite().all()


def test_embeddings_are_found_by_transformers(make_network):
    network = make_network()
    assert network.get_input_embeddings() is network.embedding
    assert network.get_output_embeddings() is network.head


def test_llada_tensors_have_the_official_names(llada):
    parts = ("attn_norm", "q_proj", "k_proj", "v_proj", "attn_out", "ff_norm", "ff_proj", "up_proj", "ff_out")
    assert set(llada(n_layers=1).state_dict()) == {
        *(f"model.transformer.{part}.weight" for part in ("wte", "ln_f", "ff_out")),
        *(f"model.transformer.blocks.0.{part}.weight" for part in parts),
    }


def test_dream_tensors_have_the_official_names(dream):
    assert set(dream(num_hidden_layers=1).state_dict()) == {
        *("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"),
        *(f"model.layers.0.{part}.weight" for part in ("input_layernorm", "post_attention_layernorm")),
        *(f"model.layers.0.self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")),
        "model.layers.0.self_attn.o_proj.weight",
        *(f"model.layers.0.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
