"""Settings of the whole test run."""

from __future__ import annotations

import os

import torch
from hypothesis import HealthCheck, settings

# Tiny tensors: a second thread costs more than it brings, and the test processes share the cores already.
torch.set_num_threads(1)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=500)
settings.load_profile("thorough" if os.environ.get("FRESHKV_THOROUGH") else "default")
