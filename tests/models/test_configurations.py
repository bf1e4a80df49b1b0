"""Official fields are kept, what follows from them is filled in, and other architectures are refused."""

import json

import pytest

from freshkv.core.errors import CheckpointError
from freshkv.models import DreamConfig, LLaDAConfig

CLASSES = {"llada": LLaDAConfig, "Dream": DreamConfig}


def test_every_official_field_is_kept(golden, tmp_path):
    official = json.loads((golden / "config.json").read_text())
    CLASSES[official["model_type"]].from_pretrained(golden).save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "config.json").read_text())
    # written anew by Transformers, or deprecated by it and without effect here
    given_up = {"transformers_version", "torch_dtype", "use_cache", "rope_scaling"}
    assert {name: kept.get(name) for name in official.keys() - given_up} == {
        name: value for name, value in official.items() if name not in given_up
    }


def test_a_configuration_survives_saving(golden, tmp_path):
    official = json.loads((golden / "config.json").read_text())
    config = CLASSES[official["model_type"]].from_pretrained(golden)
    config.save_pretrained(tmp_path)
    again = type(config).from_pretrained(tmp_path)
    differing = {name for name, value in config.to_dict().items() if again.to_dict()[name] != value}
    assert differing <= {"transformers_version"}


def test_defaults_are_the_published_sizes():
    llada, dream = LLaDAConfig(), DreamConfig()
    assert (llada.d_model, llada.n_layers, llada.n_heads, llada.n_kv_heads, llada.vocab_size) == (
        4096,
        32,
        32,
        32,
        126464,
    )
    assert (dream.hidden_size, dream.num_hidden_layers, dream.num_attention_heads) == (3584, 28, 28)
    assert (dream.num_key_value_heads, dream.intermediate_size, dream.vocab_size) == (4, 18944, 152064)


def test_fields_follow_from_others():
    config = LLaDAConfig(d_model=64, n_heads=4, vocab_size=100)
    assert (config.n_kv_heads, config.mlp_hidden_size, config.embedding_size) == (4, 256, 100)
    assert LLaDAConfig(n_heads=4, multi_query_attention=True).n_kv_heads == 1
    assert DreamConfig(num_key_value_heads=None).num_key_value_heads == 28


def test_llada_answers_to_the_usual_names():
    config = LLaDAConfig(d_model=64, n_heads=4, n_layers=3, weight_tying=True)
    assert (config.hidden_size, config.num_hidden_layers, config.tie_word_embeddings) == (64, 3, True)


@pytest.mark.parametrize(("field", "value"), [
    ("block_type", "sequential"), ("layer_norm_type", "default"), ("activation_type", "gelu"),
    ("activation_type", "swiglu"), ("rope", False), ("alibi", True), ("block_group_size", 2),
    ("layer_norm_with_affine", False), ("attention_layer_norm", True), ("input_emb_norm", True),
    ("scale_logits", True), ("clip_qkv", 8.0), ("bias_for_layer_norm", True),
])  # fmt: skip
def test_llada_refuses_an_architecture_it_does_not_implement(field, value):
    with pytest.raises(CheckpointError, match=f"{field} is {value!r}, which freshkv does not implement; expected"):
        LLaDAConfig(**{field: value})


def test_llada_refuses_norm_biases_that_follow_from_other_biases():
    with pytest.raises(CheckpointError, match="bias_for_layer_norm is None, which freshkv does not implement"):
        LLaDAConfig(include_bias=True, bias_for_layer_norm=None)
    LLaDAConfig(include_bias=False, bias_for_layer_norm=None)


@pytest.mark.parametrize(("field", "value"), [("hidden_act", "gelu"), ("use_sliding_window", True)])
def test_dream_refuses_an_architecture_it_does_not_implement(field, value):
    with pytest.raises(CheckpointError, match=f"{field} is {value!r}, which freshkv does not implement; expected"):
        DreamConfig(**{field: value})


@pytest.mark.parametrize("config_class", CLASSES.values())
def test_rotary_scaling_is_refused(config_class):
    with pytest.raises(CheckpointError, match="rotary embedding of type 'yarn' is not implemented"):
        config_class(rope_scaling={"type": "yarn", "factor": 4.0})


@pytest.mark.parametrize("config_class", CLASSES.values())
def test_the_newer_spelling_of_theta_is_understood(config_class):
    assert config_class(rope_parameters={"rope_type": "default", "rope_theta": 123.0}).rope_theta == 123.0
    assert config_class(rope_theta=321.0, rope_scaling=None).rope_theta == 321.0


@pytest.mark.parametrize("value", [0, -1, 2.5, "4", True])
def test_counts_are_whole_and_positive(value):
    with pytest.raises(CheckpointError, match=r"n_layers is .*; expected a whole number of at least 1"):
        LLaDAConfig(n_layers=value)
    with pytest.raises(CheckpointError, match=r"num_hidden_layers is .*; expected a whole number of at least 1"):
        DreamConfig(num_hidden_layers=value)


@pytest.mark.parametrize("field", ["rope_theta", "rms_norm_eps"])
@pytest.mark.parametrize("value", [0, -1.0, "1e-5", float("nan"), True])
@pytest.mark.parametrize("config_class", CLASSES.values())
def test_scales_are_positive_numbers(config_class, field, value):
    with pytest.raises(CheckpointError, match=f"{field} is .*; expected a number above 0"):
        config_class(**{field: value})


def test_heads_divide_the_width_and_kv_heads_the_heads():
    with pytest.raises(CheckpointError, match="n_heads is 3, which does not divide d_model, 64"):
        LLaDAConfig(d_model=64, n_heads=3)
    with pytest.raises(CheckpointError, match="num_key_value_heads is 3, which does not divide num_attention_heads, 4"):
        DreamConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=3)


def test_an_odd_head_width_cannot_be_rotated():
    with pytest.raises(CheckpointError, match="the head width, is 5; expected an even number"):
        LLaDAConfig(d_model=20, n_heads=4)


def test_a_network_without_mask_token_says_how_to_give_one(make_network):
    with pytest.raises(CheckpointError, match=r"mask_token_id is missing.*freshkv.load\(\.\.\., mask_token_id="):
        make_network(mask_token_id=None).network_spec  # noqa: B018


@pytest.mark.parametrize("field", ["mask_token_id", "eos_token_id"])
@pytest.mark.parametrize("value", [-1, 44, "5"])
def test_token_ids_lie_within_the_vocabulary(make_network, field, value):
    with pytest.raises(CheckpointError, match=f"{field} is {value!r}; expected a token id from 0 to"):
        make_network(**{field: value}).network_spec  # noqa: B018


def test_token_id_0_is_a_token(make_network):
    assert make_network(mask_token_id=0).network_spec.mask_token_id == 0
