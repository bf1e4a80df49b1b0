"""Every recorded trajectory is reproduced exactly: tokens, order, refreshed rows."""

from __future__ import annotations

import pytest
import torch

import freshkv
from tests.golden_cases import GoldenCase, cases, network, own_steps

CASES = list(cases("vanilla", "ar", "klass", "wino"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_trajectory_is_reproduced(case: GoldenCase) -> None:
    options = case.options()
    run = freshkv.generate(network(case.path.parent), **options)
    golden = case.tensors
    prompt = options["input_ids"].shape[1]
    decided = golden["steps"] >= 0
    for row in range(golden["steps"].shape[0]):
        passes = own_steps(golden["active"][:, row])
        mine = [step for step in run.trace if step.active[row]]
        assert len(mine) == len(passes)
        for number, (step, recorded) in enumerate(zip(mine, passes, strict=True)):
            # the recordings count putting the mask back as a transfer, too
            committed = (step.committed | step.remasked)[row, prompt:]
            assert committed.tolist() == golden["transfer"][recorded, row].bool().tolist(), f"order, step {number}"
            if "q_mask" in golden:
                assert step.refreshed[row].tolist() == golden["q_mask"][recorded, row].bool().tolist(), (
                    f"rows, {number}"
                )
            if "layer_q_mask" in golden:
                layers = range(golden["layer_q_mask"].shape[1])
                refreshed = torch.stack([step.layer(layer)[row] for layer in layers])
                assert torch.equal(refreshed, golden["layer_q_mask"][recorded, :, row].bool()), f"rows, step {number}"
    tokens = run.sequences[:, prompt:]
    assert torch.equal(tokens[decided], golden["final_tokens"][:, prompt:].long()[decided])
