"""Two processes that hold a network together do what one does."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import PreTrainedModel

import freshkv
from freshkv.core.division import UNDIVIDED, division_of
from freshkv.core.errors import InputError
from freshkv.core.generate import _record
from freshkv.models import families
from freshkv.models.qwen2 import DiffusionQwen2Config
from freshkv.models.tensor_parallel import can_divide, own_device
from tests.models import divided, official
from tests.models.families import make
from tests.once import computed_once

CASES = list(divided.cases())
#: the order of additions differs; signals are float32
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(what one process computes, what each of two does)."""
    pytest.importorskip("accelerate", reason="Transformers needs accelerate to say where weights go")
    return computed_once(tmp_path_factory, "divided", compute)


def compute(folder):
    divided.write_checkpoints(folder)
    processes = divided.start(folder)
    try:
        return divided.of_one_process(folder), divided.outcome(folder, processes)
    finally:
        for process in processes:
            process.kill()


def assert_same(found, expected, where, rank):
    """Equal, floats but for the order of additions; of what is divided the heads of process ``rank``."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            mine = value.chunk(divided.PARTS, dim=-2)[rank] if name.startswith("own ") else value
            if name in ("cache_bytes", "weights held"):
                continue  # see test_a_process_holds_its_share
            assert_same(found[name], mine, f"{where}: {name}", rank)
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where} {number}", rank)
    elif isinstance(expected, torch.Tensor) and expected.is_floating_point():
        tolerance = TOLERANCE[expected.dtype]
        torch.testing.assert_close(
            found, expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text: f"{where}\n{text}"
        )
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


@pytest.mark.parametrize("rank", range(divided.PARTS))
@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_what_one_does(name, rank, both):
    alone, together = both
    assert_same(together[rank][name], alone[name], name, rank)


@pytest.mark.parametrize("rank", range(divided.PARTS))
@pytest.mark.parametrize("name", ["llada", "dream", "llada-moe"])
def test_a_process_holds_its_share_of_the_weights(name, rank, both):
    alone, together = (results[f"logits of {name}"]["weights held"] for results in (both[0], both[1][rank]))
    kept_whole = 800  # norms, and the routers of experts
    assert alone / 2 < together < alone / 2 + kept_whole


@pytest.mark.parametrize("rank", range(divided.PARTS))
def test_a_process_holds_its_share_of_the_cache(rank, both):
    """Keys and values are divided, carried outputs are whole."""
    layers, batch, seq, width, kv_width, size = 3, 3, 16, 32, 16, 8
    keys_and_values = layers * batch * seq * 2 * kv_width * size
    for policy, outputs in (("none", 0), ("dllm", layers * batch * seq * width * size)):
        alone, together = (results[f"dream with {policy}"]["cache_bytes"] for results in (both[0], both[1][rank]))
        assert (alone, together) == (keys_and_values + outputs, keys_and_values // 2 + outputs)


def test_every_process_is_told_that_another_was_given_something_else(both):
    for results in both[1]:
        said = results["refused"]["said"]
        assert len(said) == 3  # another prompt, another seed, another request
        assert all("different prompts or options" in message for message in said)
        assert results["parts"] == 2


def test_a_network_says_that_it_is_not_divided():
    assert division_of(make("qwen3")) is UNDIVIDED


def test_passes_of_a_divided_network_are_not_recorded():
    """Nobody has tried sums between processes within a CUDA graph."""
    model = SimpleNamespace(device=torch.device("cuda"), division=SimpleNamespace(parts=2))
    with pytest.raises(InputError, match="cuda_graphs=True and a model that several processes hold together exclude"):
        _record(model, cuda_graphs=True)


# Errors, before anything is loaded


@pytest.fixture
def launched(monkeypatch):
    """A function that has this process believe that it is one of several; nothing may be loaded."""
    monkeypatch.setattr(PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("loads weights"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)

    def tell(count, rank=0):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count)):
            monkeypatch.setenv(name, str(value))

    return tell


def test_without_a_launcher_it_says_how_to_start_one(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"no launcher started any\. Run the script with torchrun --nproc-per-node 2"):
        freshkv.load("tiny-llada", tensor_parallel=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "auto"}, "tensor_parallel=True and device_map exclude each other"),
        ({"quantization_config": "int8"}, "tensor_parallel=True and quantization_config exclude each other"),
        ({"prepacked": True}, "tensor_parallel=True and prepacked=True exclude each other"),
        ({"device": "cuda:1"}, "device='cuda:1' does not go with tensor_parallel=True, which puts .* on cpu"),
        ({"tp_plan": "auto"}, "tp_plan is not taken here; tensor_parallel=True divides the model"),
        ({"tp_size": 2, "tensor_parallel": False}, "tp_size is not taken here"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, launched):
    launched(2)
    with pytest.raises(InputError, match=message):
        freshkv.load("tiny-llada", **{"tensor_parallel": True, **options})


@pytest.mark.parametrize(
    ("changes", "count", "message"),
    [
        ({}, 3, "3 processes cannot share 4 heads equally. Start 2."),
        ({}, 4, "4 processes cannot share 2 key-value heads equally. Start 2."),
        (
            {"num_key_value_heads": 1},
            2,
            "2 processes cannot share 1 key-value heads equally. This model cannot be divided.",
        ),
        ({"intermediate_size": 47}, 2, "cannot share 47 outputs of model.layers.*.mlp.gate_proj equally"),
        ({"vocab_size": 273}, 2, "cannot share 273 tokens of model.embed_tokens equally"),
    ],
)
def test_what_cannot_be_shared_equally_is_refused(changes, count, message, launched, tmp_path):
    official.write_dream(tmp_path, **changes)
    launched(count)
    with pytest.raises(InputError) as error:
        freshkv.load(tmp_path, tensor_parallel=True)
    assert message in str(error.value)


@pytest.mark.parametrize("variant", ["modernbert", "llada2"])
def test_a_family_without_a_plan_is_refused_by_name(variant, launched, tmp_path):
    model = make(variant)
    model.save_pretrained(tmp_path)
    launched(2)
    with pytest.raises(InputError) as error:
        freshkv.load(tmp_path, tensor_parallel=True)
    able = [name for name, family in sorted(families().items()) if can_divide(family)]
    assert f"models of type '{model.config.model_type}' cannot be divided" in str(error.value)
    assert f"Those that can: {', '.join(able)}." in str(error.value)
    assert {"llada", "Dream", "llama", "qwen2", "qwen3", "a2d-qwen3", "sdar", "lladamoe"} <= set(able)


def test_a_plan_that_is_not_that_of_the_network_is_refused(launched, tmp_path, monkeypatch):
    make("qwen2").save_pretrained(tmp_path)
    # as a plugin's family would have it that forgot that names start at the root of the model
    monkeypatch.setattr(DiffusionQwen2Config, "base_model_tp_plan", {"layers.*.self_attn.q_proj": "colwise"})
    launched(2)
    with pytest.raises(InputError, match=r"names layers\.\*\.self_attn\.q_proj, and it has no such module"):
        freshkv.load(tmp_path, tensor_parallel=True)


def test_a_quantised_checkpoint_is_refused(launched, tmp_path):
    official.write_llada(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    quantised = {**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (tmp_path / "config.json").write_text(json.dumps(quantised))
    launched(2)
    with pytest.raises(InputError, match="tensor_parallel=True and a quantised checkpoint exclude each other"):
        freshkv.load(tmp_path, tensor_parallel=True)


def test_a_single_process_of_a_launcher_holds_everything(monkeypatch):
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    model = freshkv.load("tiny-llada", tensor_parallel=True)
    assert division_of(model) is UNDIVIDED


def test_each_process_has_an_accelerator_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device(None) == own_device("cuda") == own_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="device='cpu' does not go with tensor_parallel=True"):
        own_device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="Process 2 of this machine has no cuda device: there are 2"):
        own_device(None)
