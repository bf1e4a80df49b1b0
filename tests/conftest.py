"""Settings of the whole test run."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, settings

# Tiny tensors: a second thread costs more than it brings, and the test processes share the cores already.
torch.set_num_threads(1)

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=500)
settings.load_profile("default")  # --hypothesis-profile=thorough takes longer and finds rarer faults
