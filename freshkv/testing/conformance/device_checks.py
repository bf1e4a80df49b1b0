"""That policies and decoders work on an accelerator, on machines that have none."""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import attrs
import torch

from freshkv.testing.conformance.checks import Checks, Draw
from freshkv.testing.conformance.runs import parting
from freshkv.testing.conformance.shared_checks import DrawCase
from freshkv.testing.conformance.subject import Subject
from freshkv.testing.far_device import NAME, far_device


def add_device_check(checks: Checks, draw_case: DrawCase) -> None:
    """Of a run on a device that is none."""

    @checks.add(
        share=0.5,
        why="on a GPU tensors of the host and of the device cannot meet: the first step would end with an error.",
        mend="make new tensors where those of the view are: torch.arange(n, device=view.tokens.device), "
        "torch.zeros_like, view.nothing; and index with tensors of that device.",
    )
    def its_tensors_lie_where_those_of_the_run_do(subject: Subject, draw: Draw) -> None:
        case = draw_case(subject, draw)
        near = case.run()
        network = deepcopy(case.problem.network)
        with far_device():
            cast("torch.nn.Module", network).to(NAME)
            far = attrs.evolve(case, network=network).run(inference_mode=False)
            far = attrs.evolve(far, sequences=far.sequences.cpu(), produced=far.produced.cpu())
        parted = parting(near, far)
        if parted is not None:
            raise case.fail(f"On another device than the host {subject.name} decodes otherwise: {parted}.")
