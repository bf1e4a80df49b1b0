"""``dkv-decode`` against trajectories recorded from the published code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import freshkv
from freshkv_dkv_cache import DKVDecode

GOLDEN = Path(__file__).parents[3] / "tests" / "golden" / "llada_mha"
CASES = sorted(GOLDEN.glob("dkv__decode*.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_recorded_trajectory_is_reproduced(path: Path) -> None:
    recorded = json.loads(path.read_text())
    settings = recorded["settings"]
    run = freshkv.generate(
        freshkv.load(GOLDEN),
        load_file(path.with_suffix(".safetensors"))["input_ids"].long(),
        policy=DKVDecode(refresh_every=settings["cache_reloading_step"]),
        decoder=f"confidence:steps={settings['steps']}",
        gen_length=settings["gen_length"],
        block_length=settings["block_length"],
    )
    assert len(run.trace) == recorded["nfe"]
    assert run.responses.tolist() == recorded["response"]
    assert run.trace.committed_at[:, -settings["gen_length"] :].tolist() == recorded["steps"]


def test_there_are_recordings() -> None:
    assert len(CASES) == 8
