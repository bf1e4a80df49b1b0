"""Where weights go and in what form: device, ``device_map``, dtype, quantisation. What cannot be used is said first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from freshkv.core.errors import FreshkvError, InputError
from freshkv.models.checkpoint import STORED_DTYPES, TensorHeader

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}

#: packages that Transformers needs for an option, by the name that its message has
OPTIONAL_PACKAGES = ("accelerate", "torchao", "bitsandbytes")


def check_one_device(device: object, options: Mapping[str, Any]) -> None:
    """Raise InputError if ``options`` have a ``device_map`` besides ``device``."""
    device_map = options.get("device_map")
    if device is not None and device_map is not None:
        raise InputError(f"device={device!r} and device_map={device_map!r} exclude each other; give one.")


def check_placement(model: PreTrainedModel) -> None:
    """Raise InputError if weights lie on several devices; what is offloaded (on the meta device) comes when needed."""
    places = {str(parameter.device) for parameter in model.parameters()} - {"meta"}
    if len(places) > 1:
        raise InputError(
            f"device_map put the weights on {', '.join(sorted(places))}, but keys and values are kept on one device. "
            'Give device="cuda:0", or a device_map with one device.'
        )


def is_quantised(config: PreTrainedConfig) -> bool:
    """Whether the weights are stored in a quantised form."""
    return getattr(config, "quantization_config", None) is not None


def unusable(options: Mapping[str, Any], error: Exception) -> FreshkvError:
    """The InputError for options that Transformers could not follow, with what to install if that is why."""
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    missing = [package for package in OPTIONAL_PACKAGES if isinstance(error, ImportError) and package in reason]
    advice = f" Install it: pip install {missing[0]}." if missing else ""
    return InputError(
        f"The weights cannot be placed as asked ({reason}). Given: {', '.join(options) or 'none'}.{advice}"
    )


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device, once a tensor could be made there; raises InputError."""
    try:
        chosen = torch.device("cpu" if device is None else device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device {device!r} cannot be used here ({reason}). Expected cpu, cuda, cuda:1, ..."
        ) from error
    return chosen


def check_dtype(dtype: str | torch.dtype | None) -> None:
    """Raise InputError unless ``dtype`` is a floating dtype, its name, "auto" or None."""
    if dtype is None or dtype == "auto" or dtype in DTYPES or dtype in DTYPES.values():
        return
    raise InputError(f"dtype {dtype!r} is not supported; expected one of {', '.join(DTYPES)}, auto.")


def choose_dtype(
    dtype: str | torch.dtype | None, config: PreTrainedConfig, headers: Mapping[str, TensorHeader]
) -> torch.dtype:
    """The dtype asked for, else the one that the configuration names, else that of the weights, else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in DTYPES:
        return DTYPES[dtype]
    if isinstance(config.dtype, torch.dtype) and config.dtype in DTYPES.values():
        return config.dtype
    stored = {header.dtype for header in headers.values()}
    return STORED_DTYPES.get(stored.pop(), torch.float32) if len(stored) == 1 else torch.float32
