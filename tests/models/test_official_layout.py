"""Checkpoints in the exact layout of the published ones: they load, and give the logits of the networks written out."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import freshkv
from freshkv.compare.prompts import encode_prompt
from freshkv.core.errors import CheckpointError, InputError
from freshkv.models import published_defaults, special_tokens
from freshkv.models.placement import check_placement
from freshkv.models.tokenizer import load_tokenizer
from tests.models import official, reference

WRITERS = {
    "llada": (official.write_llada, reference.llada_logits),
    "dream": (official.write_dream, reference.dream_logits),
}
CONFIGS = {"llada": official.LLADA_CONFIG, "dream": official.DREAM_CONFIG}
TIED = {"llada": {"weight_tying": True}, "dream": {"tie_word_embeddings": True}}
GROUPED = {"llada": {"n_kv_heads": 2}, "dream": {"num_key_value_heads": 1}}


@pytest.fixture(params=list(WRITERS))
def name(request):
    return request.param


@pytest.fixture
def folder(name, tmp_path):
    """An official folder of either family, bfloat16 shards and all."""
    folder = tmp_path / "LLaDA-8B-Instruct" if name == "llada" else tmp_path / "Dream-v0-Instruct-7B"
    WRITERS[name][0](folder)
    return folder


@pytest.mark.parametrize("variant", ["as published", "tied", "grouped"])
def test_logits_are_those_of_the_network_written_out(name, variant, tmp_path):
    write, logits_of = WRITERS[name]
    changes = {"as published": {}, "tied": TIED[name], "grouped": GROUPED[name]}[variant]
    tensors = write(tmp_path, **changes)
    model = freshkv.load(tmp_path, dtype="float32")
    tokens = torch.randint(256, (2, 11), generator=torch.Generator().manual_seed(1))
    logits = model(tokens).logits
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    for row, found in zip(tokens, logits, strict=True):
        torch.testing.assert_close(
            found.double(), logits_of(exact, {**CONFIGS[name], **changes}, row), atol=1e-4, rtol=0
        )


def test_left_padding_changes_nothing(name, folder):
    tensors = {key: tensor.double() for file in folder.glob("*.safetensors") for key, tensor in load_file(file).items()}
    model = freshkv.load(folder, dtype="float32")
    tokens = torch.randint(256, (9,), generator=torch.Generator().manual_seed(2))
    padded = torch.cat((torch.full((4,), 257), tokens))[None]
    logits = model(padded, torch.arange(13)[None] >= 4).logits[0, 4:]
    torch.testing.assert_close(logits.double(), WRITERS[name][1](tensors, CONFIGS[name], tokens), atol=1e-4, rtol=0)


def test_the_layout_is_the_published_one(name, folder):
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    count = {"llada": 6, "dream": 4}[name]
    assert shards == [f"model-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert set(index["weight_map"]) == set(freshkv.load(folder).state_dict())
    assert freshkv.load(folder).dtype == torch.bfloat16


def test_a_checkpoint_generates_text_with_every_policy(folder):
    model, tokenizer = freshkv.load(folder, dtype="float32"), freshkv.load_tokenizer(str(folder))
    ids = torch.tensor([encode_prompt(tokenizer, "Why?")])
    for policy in freshkv.policies():
        run = freshkv.generate(model, ids, policy=policy, gen_length=4, block_length=2)
        assert not (run.responses == model.network_spec.mask_token_id).any()


def test_special_tokens_are_those_of_tokenizer_and_configuration(name, folder):
    found = special_tokens(freshkv.load(folder))
    expected = {"llada": (263, 257, 262), "dream": (260, 256, 258)}[name]
    assert (found.mask, found.eos, found.end_of_turn) == expected
    tokenizer = load_tokenizer(str(folder))
    words = {
        "llada": ["<|mdm_mask|>", "<|endoftext|>", "<|eot_id|>"],
        "dream": ["<|mask|>", "<|endoftext|>", "<|im_end|>"],
    }
    assert tokenizer.convert_ids_to_tokens(list(expected)) == words[name]


def test_a_mask_token_that_only_the_tokenizer_names_is_found(name, folder):
    official.write_json(folder / "config.json", {k: v for k, v in CONFIGS[name].items() if k != "mask_token_id"})
    assert freshkv.load(folder).network_spec.mask_token_id == CONFIGS[name]["mask_token_id"]


def test_chat_templates_are_the_families_own(name, folder):
    tokenizer = load_tokenizer(str(folder))
    text = tokenizer.decode(list(encode_prompt(tokenizer, "Why is the sky blue?")))
    assert (
        text
        == {
            "llada": "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nWhy is the sky blue?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "dream": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "Why is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
        }[name]
    )


# Published defaults


def test_published_defaults_are_arguments_of_generate(name, folder):
    model = freshkv.load(folder, dtype="float32")
    defaults = published_defaults(model)
    assert (defaults.instruct, defaults.block_length, defaults.gen_length, defaults.temperature) == (True, 32, 256, 0.0)
    assert defaults.top_p == {"llada": None, "dream": 0.9}[name]
    assert defaults.end_of_turn == {"llada": 262, "dream": 258}[name]
    run = freshkv.generate(model, torch.tensor([[1, 2]]), **{**defaults.arguments, "gen_length": 32})
    assert len(run.trace) == 32


@pytest.mark.parametrize(("name", "instruct"), [
    ("LLaDA-8B-Base", False), ("LLaDA-8B-Instruct", True), ("LLaDA-1.5", True), ("Dream-v0-Base-7B", False),
    ("models--GSAI-ML--LLaDA-8B-Base/snapshots/0123abc", False),
])  # fmt: skip
def test_names_tell_base_from_instruct(name, instruct, tmp_path):
    official.write_llada(tmp_path / name)
    defaults = published_defaults(freshkv.load(tmp_path / name))
    assert (defaults.instruct, defaults.block_length) == (instruct, 32 if instruct else None)


def test_a_name_that_tells_nothing_is_asked_about(tmp_path):
    official.write_llada(tmp_path / "mine")
    model = freshkv.load(tmp_path / "mine")
    with pytest.raises(InputError, match="does not say whether this is a Base or an Instruct model"):
        published_defaults(model)
    assert published_defaults(model, instruct=False).block_length is None


def test_a_model_that_was_made_here_has_defaults_too():
    model = freshkv.models.DreamModel(freshkv.models.DreamConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8,
        vocab_size=20, mask_token_id=5,
    ))  # fmt: skip
    defaults = published_defaults(model, instruct=True)
    assert (defaults.end_of_turn, defaults.eos_token_id) == (None, None)


# Checkpoints that are wrong


def test_a_truncated_shard_is_named(folder):
    shard = sorted(folder.glob("*.safetensors"))[2]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=f"{shard.name} is truncated or corrupt"):
        freshkv.load(folder)


def test_a_tensor_that_its_shard_lacks_is_named(folder):
    shard = sorted(folder.glob("*.safetensors"))[1]
    tensors = load_file(shard)
    gone = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != gone}, shard)
    with pytest.raises(CheckpointError, match=f"Tensors missing: {gone}"):
        freshkv.load(folder)


def test_another_architecture_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    official.write_json(folder / "config.json", {**config, "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})
    with pytest.raises(CheckpointError, match=r"model_type is 'gpt2'; supported: .*Dream.*llada"):
        freshkv.load(folder)


def test_the_weights_of_another_family_are_refused(tmp_path):
    official.write_dream(tmp_path)
    official.write_json(tmp_path / "config.json", official.LLADA_CONFIG)
    with pytest.raises(CheckpointError, match="the weights do not fit LLaDAModelLM"):
        freshkv.load(tmp_path, mask_token_id=3)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused_before_weights_are_read(name, tmp_path):
    write, field = WRITERS[name][0], {"llada": "embedding_size", "dream": "vocab_size"}[name]
    write(tmp_path, **{field: 262 if name == "llada" else 259, "mask_token_id": 3, "eos_token_id": 2})
    last = {"llada": r"<\|mdm_mask\|> has id 263", "dream": r"<\|mask\|> has id 260"}[name]
    with pytest.raises(CheckpointError, match=rf"tokenizer's token {last}, but the embedding has \d+ rows"):
        freshkv.load(tmp_path, mask_token_id=3)
    with pytest.raises(CheckpointError, match=r"the tokenizer's token .* has id \d+, but by config.json the embedding"):
        load_tokenizer(str(tmp_path))


def test_the_tokenizer_of_another_checkpoint_is_noticed_by_its_mask_token(tmp_path):
    official.write_dream(tmp_path, mask_token_id=270)
    with pytest.raises(CheckpointError, match=r"mask_token_id 270, but the tokenizer's mask token <\|mask\|> is 260"):
        freshkv.load(tmp_path)
    with pytest.raises(CheckpointError, match=r"mask token <\|mask\|> is 260, but config.json has mask_token_id 270"):
        load_tokenizer(str(tmp_path))
    assert freshkv.load(tmp_path, mask_token_id=260).network_spec.mask_token_id == 260


# Placement


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_is_passed_on(folder, device_map):
    model = freshkv.load(folder, device_map=device_map, dtype="float32")
    assert model.device == torch.device("cpu")
    assert torch.equal(
        model(torch.tensor([[1, 2]])).logits, freshkv.load(folder, dtype="float32")(torch.tensor([[1, 2]])).logits
    )


def test_device_and_device_map_exclude_each_other(folder):
    with pytest.raises(InputError, match="device='cpu' and device_map='auto' exclude each other"):
        freshkv.load(folder, device="cpu", device_map="auto")


def test_a_device_map_that_cannot_be_used_says_why(folder):
    with pytest.raises(InputError, match=r"cannot be placed as asked .*Given: device_map"):
        freshkv.load(folder, device_map="nowhere")


def test_what_does_not_fit_is_offloaded(folder, tmp_path):
    whole = freshkv.load(folder, dtype="float32")
    part = freshkv.load(
        folder, dtype="float32", device_map="auto", max_memory={"cpu": 3 * whole.get_memory_footprint() // 4},
        offload_folder=tmp_path / "offloaded",
    )  # fmt: skip
    assert {str(parameter.device) for parameter in part.parameters()} == {"cpu", "meta"}
    prompt = torch.tensor([[1, 2, 3]])
    runs = [freshkv.generate(model, prompt, policy="dual", gen_length=4).sequences for model in (whole, part)]
    assert torch.equal(*runs)


def test_weights_on_several_devices_are_refused():
    class Spread:
        def parameters(self):
            return [SimpleNamespace(device=torch.device("cuda", index)) for index in (0, 0, 1)]

    with pytest.raises(InputError, match="device_map put the weights on cuda:0, cuda:1"):
        check_placement(Spread())
