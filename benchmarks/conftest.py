"""Random models and prompts of stated shapes; speed does not depend on what weights hold."""

from __future__ import annotations

import pytest
import torch

from freshkv.models import LLaDAConfig, LLaDAModelLM

PROMPT, RESPONSE, BLOCK, VOCABULARY = 512, 128, 32, 32_000


@pytest.fixture(scope="session", params=["float32", "bfloat16"])
def network(request: pytest.FixtureRequest) -> LLaDAModelLM:
    """LLaDA, 512 wide, 8 layers, 8 heads, feed-forward 1536, vocabulary 32,000; 40 million parameters in its layers."""
    torch.manual_seed(0)
    config = LLaDAConfig(
        d_model=512,
        n_layers=8,
        n_heads=8,
        n_kv_heads=8,
        mlp_hidden_size=1536,
        vocab_size=VOCABULARY,
        mask_token_id=VOCABULARY - 1,
        eos_token_id=VOCABULARY - 2,
    )
    return LLaDAModelLM(config).eval().requires_grad_(False).to(getattr(torch, request.param))


@pytest.fixture(scope="session")
def prompt() -> torch.Tensor:
    """long [1, PROMPT]."""
    return torch.randint(0, VOCABULARY - 2, (1, PROMPT), generator=torch.Generator().manual_seed(0))
