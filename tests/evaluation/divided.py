"""Commands in processes that hold one model together: ``torchrun -m tests.evaluation.divided FOLDER CHECKPOINT``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from typer.testing import CliRunner

from freshkv.cli import app


def commands(folder, checkpoint, *options):
    """Name -> command line of freshkv; ``options`` say how the model is held."""
    common = ("--model", checkpoint, "--include-path", folder / "tasks", *options)
    generation = ("--task", "first", "--policy", "d2cache:current_k=2", "--block-length", 4, "--batch-size", 2)
    return {
        "eval": ("eval", *common, *generation, "--output", folder / "out"),
        "again": ("eval", *common, *generation, "--output", folder / "out"),
        "choices": ("eval", *common, "--task", "choices", "--mc-samples", 3, "--output", folder / "choices"),
        "generate": (
            *("generate", "--model", checkpoint, "--task", "weave", "--policy", "dllm", *options),
            *("--gen-length", 8, "--block-length", 4, "--trace", folder / "trace.safetensors"),
        ),
    }


def harness(folder, checkpoint, **options):
    """What lm-eval makes of our model, as its own command line runs it; None in processes that have nothing to show."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    import freshkv.evaluation.harness  # noqa: F401 - registers the model

    model = {"pretrained": checkpoint, "policy": "dual", "block_length": 4, **options}
    manager = TaskManager(include_path=str(folder / "tasks"), include_defaults=False)
    found = simple_evaluate("freshkv", model, tasks=["second"], task_manager=manager, bootstrap_iters=0)
    if found is None:
        return None
    scores, shown = found["results"]["second"], found["config"]["freshkv"]
    return {"exact_match": scores["exact_match,none"], "processes": shown["processes"], **shown["generation"]}


def run_all(folder, checkpoint, *options):
    """Exit code and output of every command."""
    said = {}
    for name, command in commands(folder, checkpoint, *options).items():
        result = CliRunner().invoke(app, [str(word) for word in command])
        said[name] = {"code": result.exit_code, "stdout": result.stdout, "stderr": result.stderr}
    return said


def main():
    """Here, with tensor parallel; what was said goes to a file for each process."""
    folder, checkpoint = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    said = run_all(folder, checkpoint, "--tensor-parallel")
    said["harness"] = harness(folder, checkpoint, tensor_parallel=True)
    (folder / f"said-{os.environ['RANK']}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
