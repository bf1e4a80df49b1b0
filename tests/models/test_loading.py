"""``load``: names, folders, the hub's cache; dtypes and devices; and every way in which a checkpoint can be wrong."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from freshkv.core.errors import CheckpointError, InputError, UnknownNameError
from freshkv.models import DreamConfig, DreamModel, LLaDAConfig, LLaDAModelLM, families, load, registry

TOKENS = torch.tensor([[1, 2, 3, 4, 5]])


def saved(network, folder, **options):
    network.save_pretrained(folder, **options)
    network.requires_grad_(False)  # as loaded ones are, so that the same kernels run
    return folder


def edit_config(folder, **changes):
    path = folder / "config.json"
    fields = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))


def edit_weights(folder, edit):
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.fixture
def folder(make_network, tmp_path):
    """A saved network of each family."""
    return saved(make_network(), tmp_path / "checkpoint")


@pytest.fixture
def llada_folder(llada, tmp_path):
    return saved(llada(), tmp_path / "checkpoint")


# What loads


def test_a_saved_network_loads_as_it_was(network, tmp_path):
    loaded = load(saved(network, tmp_path))
    assert type(loaded) is type(network)
    assert torch.equal(loaded(TOKENS).logits, network(TOKENS).logits)
    assert loaded.network_spec == network.network_spec


def test_shards_with_an_index_load(network, tmp_path):
    saved(network, tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert (tmp_path / "model.safetensors.index.json").exists()
    assert torch.equal(load(tmp_path)(TOKENS).logits, network(TOKENS).logits)


def test_a_loaded_network_is_ready_and_frozen(folder):
    network = load(folder)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.device == torch.device("cpu")


def test_transformers_loads_the_folder_without_remote_code(make_network, tmp_path):
    network = make_network()
    saved(network, tmp_path)
    # official folders point to code of their own
    code = {"AutoConfig": "configuration_absent.AbsentConfig", "AutoModel": "modeling_absent.AbsentModel"}
    edit_config(tmp_path, auto_map=code)
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(network.config)
    for auto_class in (AutoModel, AutoModelForMaskedLM):
        loaded = auto_class.from_pretrained(tmp_path).requires_grad_(False)
        assert type(loaded) is type(network)
        assert torch.equal(loaded(TOKENS).logits, network(TOKENS).logits)


def test_tied_heads_stay_tied(llada, dream, tmp_path):
    for name, network in (("llada", llada(weight_tying=True)), ("dream", dream(tie_word_embeddings=True))):
        folder = saved(network, tmp_path / name)
        stored = load_file(folder / "model.safetensors")
        assert not {"lm_head.weight", "model.transformer.ff_out.weight"} & stored.keys()
        loaded = load(folder)
        assert loaded.head.weight is loaded.embedding.weight


def test_families_are_named_by_model_type():
    assert (families()["llada"], families()["Dream"]) == (LLaDAModelLM, DreamModel)
    assert (families()["llada"].config_class, families()["Dream"].config_class) == (LLaDAConfig, DreamConfig)
    assert {name: family.config_class.model_type for name, family in families().items()} == {
        name: name for name in families()
    }


def test_families_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        families()["other"] = LLaDAModelLM


def test_a_path_is_text_or_a_path(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in (folder, str(folder), f"{folder}/", f"~/{folder.name}"):
        assert load(name).network_spec.layers == 2


def test_a_bundled_name_loads(folder, monkeypatch):
    shutil.copytree(folder, folder.parent / "bundled" / "tiny-test")
    monkeypatch.setattr(registry, "BUNDLED_FOLDER", folder.parent / "bundled")
    assert load("tiny-test").network_spec.layers == 2


def test_loading_a_bundled_model_is_silent(folder, monkeypatch, capfd):
    shutil.copytree(folder, folder.parent / "bundled" / "tiny-test")
    monkeypatch.setattr(registry, "BUNDLED_FOLDER", folder.parent / "bundled")
    capfd.readouterr()
    load("tiny-test")
    assert capfd.readouterr() == ("", "")


def test_what_the_hub_gave_before_loads_offline(folder, tmp_path):
    repository = tmp_path / "cache" / "models--someone--network"
    commit = "0" * 40
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    loaded = load("someone/network", cache_dir=tmp_path / "cache", local_files_only=True)
    assert loaded.network_spec.layers == 2


def test_options_reach_the_configuration_and_transformers(folder):
    edit_config(folder, mask_token_id=None)
    network = load(folder, mask_token_id=7, attn_implementation="sdpa")
    assert network.network_spec.mask_token_id == 7


def test_an_option_that_nobody_knows_is_refused(folder):
    with pytest.raises(InputError, match=r"cannot use these options \(.*mask_tokn.*Given: mask_tokn"):
        load(folder, mask_tokn=3)


def test_old_inverse_frequencies_in_the_weights_are_ignored(folder):
    edit_weights(folder, lambda tensors: tensors.update({"model.rotary_emb.inv_freq": torch.ones(4)}))
    assert load(folder).network_spec.layers == 2


# Dtype and device


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_checkpoint_chooses_the_dtype_unless_told(make_network, dtype, tmp_path):
    network = make_network().to(dtype)
    saved(network, tmp_path)
    assert {load(tmp_path, dtype=given).dtype for given in (None, "auto")} == {dtype}
    assert torch.equal(load(tmp_path)(TOKENS).logits, network(TOKENS).logits)
    assert load(tmp_path, dtype=torch.float64).dtype == torch.float64
    assert load(tmp_path, dtype="bfloat16").dtype == torch.bfloat16


def test_without_a_dtype_in_the_configuration_that_of_the_weights_counts(make_network, tmp_path):
    saved(make_network().to(torch.bfloat16), tmp_path)
    edit_config(tmp_path, dtype=...)
    assert load(tmp_path).dtype == torch.bfloat16


def test_the_older_spelling_of_dtype_counts(folder):
    edit_config(folder, dtype=..., torch_dtype="bfloat16")
    assert load(folder).dtype == torch.bfloat16


def test_the_older_option_for_the_dtype_counts_unless_there_is_a_newer_one(folder):
    assert load(folder, torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    assert load(folder, torch_dtype="bfloat16", dtype="float64").dtype == torch.float64


@pytest.mark.parametrize("dtype", ["bloat16", "int8", torch.int64, 16])
def test_an_unusable_dtype_is_refused(folder, dtype):
    with pytest.raises(InputError, match="is not supported; expected one of float32, bfloat16, float16, float64, auto"):
        load(folder, dtype=dtype)


@pytest.mark.parametrize("device", ["cuba", "cuda:99", 3.5])
def test_an_unusable_device_is_refused(folder, device):
    with pytest.raises(InputError, match=r"device .* cannot be used here \(.*Expected cpu, cuda"):
        load(folder, device=device)


def test_a_network_goes_to_the_device(folder):
    assert load(folder, device="meta").device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_cuda_device_gives_the_same_logits(make_network, dtype, tmp_path):
    saved(make_network(), tmp_path)
    mask = torch.tensor([[0, 1, 1, 1, 1]])
    exact = load(tmp_path)(TOKENS, mask).logits[:, 1:]
    found = load(tmp_path, device="cuda", dtype=dtype)(TOKENS.cuda(), mask.cuda()).logits[:, 1:]
    tolerance = 1e-3 if dtype == torch.float32 else 0.5
    torch.testing.assert_close(found.float().cpu(), exact, atol=tolerance, rtol=0)


# Names that lead nowhere


def test_a_misspelt_bundled_name_suggests_the_right_one(monkeypatch, tmp_path):
    for name in ("tiny-llada", "tiny-dream"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    monkeypatch.setattr(registry, "BUNDLED_FOLDER", tmp_path)
    with pytest.raises(UnknownNameError, match=r"Unknown model 'tiny-lada'\. Did you mean 'tiny-llada'.* hub id"):
        load("tiny-lada")


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "a/b/c", "~/nothing/at-all", "", "two words"])
def test_a_folder_that_does_not_exist_is_named(name):
    with pytest.raises(CheckpointError, match=r"There is no folder '.*'; expected one that holds config.json"):
        load(name)


def test_a_file_is_not_a_folder(folder):
    with pytest.raises(CheckpointError, match=r"is a file; expected the folder that holds config\.json"):
        load(folder / "model.safetensors")


def test_a_hub_id_that_cannot_be_reached_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=r"'someone/network' is no folder here, and the hub did not give it.*offline"
    ):
        load("someone/network", cache_dir=tmp_path)


# Checkpoints that are wrong


def test_a_folder_without_configuration(folder):
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load(folder)


@pytest.mark.parametrize(("text", "complaint"), [
    ("{", "cannot be read as JSON"), ("[]", "holds a JSON list; expected an object"), ("\xff\xfe", "read as JSON")
])  # fmt: skip
def test_a_configuration_that_is_no_json_object(folder, text, complaint):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=complaint):
        load(folder)


@pytest.mark.parametrize("model_type", ["gpt2", ..., 7, ["llada"]])
def test_an_unknown_family_lists_the_known_ones(folder, model_type):
    edit_config(folder, model_type=model_type)
    with pytest.raises(CheckpointError, match=r"model_type is .*; supported: Dream, .*, llada, .*, sdar\."):
        load(folder)


def test_an_unimplemented_architecture_names_the_folder_and_the_field(llada_folder):
    edit_config(llada_folder, alibi=True)
    with pytest.raises(CheckpointError, match="checkpoint: config: alibi is True, which freshkv does not implement"):
        load(llada_folder)


@pytest.mark.parametrize("changes", [{"dtype": "floaty"}, {"n_heads": "four"}, {"d_model": None}, {"id2label": 3}])
def test_a_configuration_value_that_makes_no_sense(llada_folder, changes):
    edit_config(llada_folder, **changes)
    with pytest.raises(CheckpointError, match=str(llada_folder)):
        load(llada_folder)


def test_overrides_are_checked_too(llada_folder):
    with pytest.raises(CheckpointError, match="n_heads is 5, which does not divide d_model"):
        load(llada_folder, n_heads=5)


def test_no_mask_token(folder):
    edit_config(folder, mask_token_id=...)
    with pytest.raises(CheckpointError, match=r"mask_token_id is missing.*pass it: freshkv\.load"):
        load(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no weights; expected model\.safetensors"):
        load(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001-of-2.bin"])
def test_pickled_weights_are_refused(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=r"freshkv reads safetensors only.*Convert it"):
        load(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_weights(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated or corrupt"):
        load(folder)


def test_corrupt_weights(folder):
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all!")
    with pytest.raises(CheckpointError, match="is truncated or corrupt"):
        load(folder)


def test_a_missing_shard(make_network, tmp_path):
    saved(make_network(), tmp_path, max_shard_size="10KB")
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(CheckpointError, match=f"shards missing that the index names: {gone.name}"):
        load(tmp_path)


@pytest.mark.parametrize("index", ["{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}', "nonsense"])
def test_an_index_without_a_map(make_network, index, tmp_path):
    saved(make_network(), tmp_path, max_shard_size="10KB")
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json (has no weight_map|cannot be read)"):
        load(tmp_path)


def test_missing_tensors_are_named_instead_of_left_random(llada_folder):
    def remove_a_norm(tensors):
        del tensors["model.transformer.ln_f.weight"]

    edit_weights(llada_folder, remove_a_norm)
    with pytest.raises(CheckpointError, match=r"Tensors missing: model\.transformer\.ln_f\.weight\."):
        load(llada_folder)


def test_a_long_list_is_shortened(llada_folder):
    edit_config(llada_folder, n_layers=4)
    with pytest.raises(CheckpointError, match=r"missing: model\.transformer\.blocks\.2\..* and 13 more"):
        load(llada_folder)


def test_a_head_that_is_neither_there_nor_tied(llada, tmp_path):
    saved(llada(weight_tying=True), tmp_path)
    edit_config(tmp_path, weight_tying=False)
    with pytest.raises(CheckpointError, match=r"missing: model\.transformer\.ff_out\.weight"):
        load(tmp_path)


def test_a_tied_head_may_also_be_stored(dream, tmp_path):
    network = dream(tie_word_embeddings=True)
    saved(network, tmp_path)
    edit_weights(
        tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    )
    assert torch.equal(load(tmp_path)(TOKENS).logits, network(TOKENS).logits)


def test_tensors_of_another_architecture_are_refused(dream, tmp_path):
    saved(dream(), tmp_path)
    edit_weights(tmp_path, lambda tensors: tensors.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}))
    with pytest.raises(CheckpointError, match=r"not part of this architecture: model\.layers\.0\.self_attn\.q_norm"):
        load(tmp_path)


def test_tensors_of_another_shape_are_named_with_both(llada_folder):
    edit_config(llada_folder, mlp_hidden_size=64)
    with pytest.raises(CheckpointError, match=r"ff_out\.weight \(32, 48\) instead of \(32, 64\)"):
        load(llada_folder)


def test_quantised_tensors_are_refused(llada_folder):
    def quantise(tensors):
        tensors["model.transformer.ln_f.weight"] = tensors["model.transformer.ln_f.weight"].to(torch.int8)

    edit_weights(llada_folder, quantise)
    with pytest.raises(
        CheckpointError, match=r"stored as something else than F32, .*: model\.transformer\.ln_f\.weight I8"
    ):
        load(llada_folder)


def test_a_vocabulary_that_is_not_that_of_the_embedding(folder):
    edit_config(folder, vocab_size=50, embedding_size=50)
    with pytest.raises(
        CheckpointError, match=r"the embedding .* has 4[04] rows, but by config\.json the vocabulary has 50"
    ):
        load(folder)
