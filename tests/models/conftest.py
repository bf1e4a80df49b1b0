"""Small networks of both families, and the recorded ones."""

from pathlib import Path

import pytest
import torch

from freshkv.models import DreamConfig, DreamModel, LLaDAConfig, LLaDAModelLM

GOLDEN = Path(__file__).parents[1] / "golden"

#: larger than the usual 0.02, so that a wrong network is far from a right one
INIT_STD = 0.2


def make_llada(**changes):
    fields = {
        "d_model": 32, "n_layers": 2, "n_heads": 4, "mlp_hidden_size": 48, "vocab_size": 40, "embedding_size": 44,
        "init_std": INIT_STD, "mask_token_id": 41, "eos_token_id": 42,
    }  # fmt: skip
    torch.manual_seed(0)
    return LLaDAModelLM(LLaDAConfig(**{**fields, **changes})).eval()


def make_dream(**changes):
    fields = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 40, "initializer_range": INIT_STD, "mask_token_id": 38,
        "eos_token_id": [39, 37],
    }  # fmt: skip
    torch.manual_seed(0)
    return DreamModel(DreamConfig(**{**fields, **changes})).eval()


NETWORKS = {
    "llada": make_llada,
    "llada-grouped": lambda: make_llada(n_kv_heads=2),
    "llada-one-kv-head": lambda: make_llada(multi_query_attention=True),
    "llada-tied": lambda: make_llada(weight_tying=True),
    "llada-qkv-bias": lambda: make_llada(include_qkv_bias=True),
    "llada-all-biases": lambda: make_llada(include_bias=True),
    "llada-tied-with-biases": lambda: make_llada(include_bias=True, weight_tying=True),
    "dream": make_dream,
    "dream-ungrouped": lambda: make_dream(num_key_value_heads=None),
    "dream-tied": lambda: make_dream(tie_word_embeddings=True),
}


@pytest.fixture(params=list(NETWORKS))
def network(request):
    """Each variant of both families; biases are not left at zero."""
    model = NETWORKS[request.param]()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    return model


@pytest.fixture(params=[make_llada, make_dream], ids=["llada", "dream"])
def make_network(request):
    """A function from changed configuration fields to a small network, for each family."""
    return request.param


@pytest.fixture
def llada():
    return make_llada


@pytest.fixture
def dream():
    return make_dream


@pytest.fixture(params=["llada_mha", "dream_gqa"])
def golden(request):
    """The folder of a recorded network."""
    return GOLDEN / request.param
