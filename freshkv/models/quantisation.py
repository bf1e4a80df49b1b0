"""Short names for what Transformers can do with weights as it loads them: 8 or 4 bits instead of 16."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from freshkv.core.errors import InputError, unknown_name

#: name -> the package that does it
QUANTISATIONS = {"int8": "torchao", "int4": "torchao", "nf4": "bitsandbytes"}

INT4_GROUP = 32  #: weights that share a scale; divides the width of every linear layer


def quantisation(name: str) -> Any:
    """The ``quantization_config`` of Transformers that a name stands for.

    ``int8`` and ``int4`` keep 8 or 4 bits of each weight of the linear layers (torchao), ``nf4`` QLoRA's 4-bit normal
    float (bitsandbytes). Activations stay as they are, so that a row does not depend on those computed with it; that of
    LLM.int8 does, which is why it has no name here.

    Raises UnknownNameError for another name, InputError if the package is not installed.
    """
    if name not in QUANTISATIONS:
        raise unknown_name("quantisation", name, QUANTISATIONS)
    package = QUANTISATIONS[name]
    if find_spec(package) is None:
        raise InputError(
            f"quantization_config={name!r} needs {package}, which is not installed. Install it: "
            "pip install 'freshkv[quantised]'."
        )
    return _torchao(name) if package == "torchao" else _bitsandbytes()


def _torchao(name: str) -> Any:
    import torch
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup
    from transformers import TorchAoConfig

    if name == "int8":
        return TorchAoConfig(Int8WeightOnlyConfig())
    four_bits: Any = vars(torch)["int4"]  # its type stubs do not name it
    return TorchAoConfig(IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=PerGroup(INT4_GROUP)))


def _bitsandbytes() -> Any:
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return config(load_in_4bit=True, bnb_4bit_quant_type="nf4")
