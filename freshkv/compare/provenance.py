"""What a results file must say so that the experiment can be run again, and so that runs are told apart."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from freshkv.compare.cases import Case
from freshkv.compare.experiment import Experiment
from freshkv.compare.origins import origin_of
from freshkv.compare.records import Header
from freshkv.core.network import Network
from freshkv.core.version import VERSION
from freshkv.models.source import CONFIG_FILES, WEIGHT_FILES, locate

_CPU_FACTS = Path("/proc/cpuinfo")


def describe(experiment: Experiment, model: Network, cases: Sequence[Case]) -> Header:
    """The header of the experiment's results. Call it once threads are set."""
    parts = {
        "experiment": _experiment_facts(experiment, model, cases),
        "environment": _environment_facts(model),
    }
    return Header(
        created=datetime.now(UTC).isoformat(timespec="seconds"), model=experiment.model, **json.loads(json.dumps(parts))
    )


def _environment_facts(model: Network) -> dict[str, Any]:
    """What the same experiment may give other numbers for: versions, the machine, and how torch is set."""
    return {
        "freshkv": VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cuda": torch.version.cuda if model.device.type == "cuda" else None,
        "device": device_name(model.device),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def default_path(header: Header) -> Path:
    """A file name of the experiment's own under ``results``: the same experiment finds it again."""
    model = re.sub(r"[^\w.-]+", "-", Path(header.model).name)
    parts = json.dumps([header.experiment, header.environment], sort_keys=True)
    return Path("results") / f"{model}-{hashlib.sha256(parts.encode()).hexdigest()[:8]}.jsonl"


def _experiment_facts(experiment: Experiment, model: Network, cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "model_hash": hash_model(experiment.model),
        "tasks": [task.name for task in experiment.tasks],
        "task_hashes": {
            task.name: hash_cases(case for case in cases if case.task.name == task.name) for task in experiment.tasks
        },
        "gen_lengths": {task.name: experiment.gen_length_of(task) for task in experiment.tasks},
        "block_length": experiment.block_length,
        "policies": [policy.spec for policy in experiment.policies],
        "decoders": [decoder.spec for decoder in experiment.decoders],
        "model_origin": origin_of(type(model)),
        "task_origins": task_origins(experiment),
        "origins": entry_origins(experiment),
        "problems": experiment.problems,
        "seeds": list(experiment.seeds),
        "repeats": experiment.repeats,
        "match_budget": experiment.match_budget,
        "regret": experiment.regret,
        "batch_size": experiment.batch_size,
        "temperature": experiment.temperature,
        "top_k": experiment.top_k,
        "top_p": experiment.top_p,
        "stop_at_eos": experiment.stop_at_eos,
        "raw_prompts": experiment.raw_prompts,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
    }


def task_origins(experiment: Experiment) -> dict[str, str]:
    """Name of each task to where its class comes from."""
    return {task.name: origin_of(type(task)) for task in experiment.tasks}


def entry_origins(experiment: Experiment) -> dict[str, str]:
    """Name of each policy and decoder to where its class comes from."""
    return {part.name: origin_of(type(part)) for part in (*experiment.policies, *experiment.decoders)}


def hash_model(model: str) -> str:
    """SHA-256 of a checkpoint's configuration and weights."""
    folder = locate(model, CONFIG_FILES + WEIGHT_FILES, {})
    files = sorted(path for pattern in (*CONFIG_FILES, "*.safetensors") for path in folder.glob(pattern))
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def hash_cases(cases: Iterable[Case]) -> str:
    """SHA-256 of problems and their token ids: other problems, another tokenizer or template give another hash."""
    total = hashlib.sha256()
    for case in cases:
        total.update(json.dumps([case.key, case.problem.prompt, case.problem.answer, case.prompt]).encode())
    return total.hexdigest()


def device_name(device: torch.device) -> str:
    """The name of the GPU or CPU model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and _CPU_FACTS.is_file():
        names = re.findall(r"^model name\s*:\s*(.+)$", _CPU_FACTS.read_text(errors="replace"), re.MULTILINE)
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()
