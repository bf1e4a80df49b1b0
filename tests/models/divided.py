"""What one process computes, and what two do that hold a network together: the same cases for both."""

from __future__ import annotations

import os
import socket
import traceback
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import attrs
import torch

import freshkv
from freshkv import CachePolicy, Commit, Decoder, LayerwisePolicy, Selection
from freshkv.compare import measure_drift
from freshkv.core.division import division_of
from freshkv.core.engine import Engine
from freshkv.core.probing import Probing
from freshkv.core.rows import RowSet
from freshkv.core.visible import Visible
from freshkv.testing.strategies import left_padded
from tests.models import official
from tests.models.families import make

PARTS = 2
#: processes are forked from a server that has imported what takes long, and has not begun to compute
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["freshkv.compare", "freshkv.models.loading", "freshkv.core.generate"])

#: name -> what writes the checkpoint into a folder; official layout where there is one
CHECKPOINTS = {
    "llada": official.write_llada,
    "llada-grouped": lambda folder: official.write_llada(folder, n_kv_heads=2, seed=1),
    "llada-tied": lambda folder: official.write_llada(folder, weight_tying=True),
    "dream": official.write_dream,
    "dream-tied": lambda folder: official.write_dream(folder, tie_word_embeddings=True, seed=1),
    **{
        name: lambda folder, name=name: make(name).save_pretrained(folder)
        for name in (
            *("qwen2", "qwen2-tied", "qwen3", "qwen3-biases", "qwen3-blocks", "llama", "llama3"),
            *("sdar", "fast-dllm", "llada-moe", "llada-moe-mixed"),
        )
    },
}
POLICIES = sorted(freshkv.policies())
DECODERS = sorted(freshkv.decoders())
#: networks that random rows are computed of: heads in groups, shifted logits, blocks, experts
SCHEDULED = ("llada-grouped", "dream", "qwen3-blocks", "llada-moe-mixed")
SCHEDULES = 12


def random_bool(generator, *shape, share=None):
    """bool of a shape with a random share of True."""
    share = torch.rand((), generator=generator) if share is None else share
    return torch.rand(shape, generator=generator) < share


# Logits


def logits(load, name):
    """A plain forward pass over a padded batch, and how many weights lie here."""
    model = load(name)
    ids = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        found = model(ids, left_padded((3, 0), 9)).logits
    facts = {"dtype": str(model.dtype), "device": str(model.device), "spec": model.network_spec}
    return {"logits": found, **facts, "weights held": sum(map(own_elements, model.parameters()))}


def own_elements(parameter):
    """Of a parameter, in this process; releases of Transformers differ in what holds a share."""
    return (parameter.to_local() if hasattr(parameter, "to_local") else parameter).numel()


# Runs


def run(load, name, **options):
    """A whole run over a padded batch: everything that it shows."""
    ids = torch.randint(0, 50, (3, 8), generator=torch.Generator().manual_seed(5))
    options = {"gen_length": 8, "seed": [1, 2, 3], **options}
    done = freshkv.generate(load(name), ids, left_padded((2, 0, 4), 8), **options)
    steps = [
        {
            "tokens": step.tokens,
            "committed": step.committed,
            "remasked": step.remasked,
            "refreshed": step.refreshed,
            "by_layer": step.refreshed_by_layer,
            "confidence": step.confidence,
        }
        for step in done.trace
    ]
    stats = done.stats
    return {
        "sequences": done.sequences,
        "steps": steps,
        "counted": (stats.forwards, stats.rows_computed, stats.tokens_committed, stats.cost),
        "cache_bytes": stats.cache_bytes,
    }


def served(load, name, **options):
    """Requests of different lengths, of which three are decoded at a time."""
    generator = torch.Generator().manual_seed(8)
    requests = []
    for seed in range(7):
        prompt = torch.randint(0, 50, (1 + seed * 3 % 8,), generator=generator)
        requests.append(freshkv.Request(prompt, gen_length=2 + 2 * (seed % 3), block_length=2, seed=seed))
    results = freshkv.generate_many(load(name), requests, batch_size=3, keep_traces=True, **options)
    return {
        "results": [
            {
                "index": result.index,
                "response": result.response,
                "counted": (result.stats.forwards, result.stats.passes, result.stats.rows_computed),
                "refreshed": [step.refreshed for step in result.trace],
            }
            for result in results
        ]
    }


def drift(load, name, policy):
    """A run beside the truth: vectors of all heads are compared."""
    measured = measure_drift(load(name), torch.arange(3, 9)[None], policy=policy, gen_length=6, block_length=3)
    names = ("keys_cosine", "values_cosine", "hidden_cosine", "keys_norm", "values_norm", "hidden_norm", "kl", "top1")
    return {name: getattr(measured, name) for name in (*names, "refreshed", "tokens", "uncached_tokens")}


# Random rows


def schedule(load, number, *, carried):
    """Random rows in every step (and layer), some keys hidden: hidden states, caches and all signals."""
    generator = torch.Generator().manual_seed(1000 + number)
    model = load(SCHEDULED[number % len(SCHEDULED)])
    layers, batch, seq = model.network_spec.layers, 1 + number % 3, 4 + number % 5
    is_valid = left_padded(tuple(torch.randint(0, seq - 2, (batch,), generator=generator).tolist()), seq)
    engine = Engine(
        model, is_valid, carried=carried, keep_queries=True, keep_paid=True, watch_attention=carried, poison=True
    )
    tokens = torch.randint(0, 50, (batch, seq), generator=generator)
    steps = []
    for step in range(4):
        fresh = torch.randint(0, 50, (batch, seq), generator=generator)
        tokens = torch.where(random_bool(generator, batch, seq, share=0.4), fresh, tokens)
        visible = None
        if step > 0 and number % 2:
            visible = Visible.of(random_bool(generator, batch, layers, seq) | (torch.arange(seq) == seq - 1))
        rows = random_bool(generator, layers, batch, seq) | (step == 0)
        probe, watch = random_bool(generator, layers, batch, seq), random_bool(generator, batch, seq)
        if carried:
            steps.append(carried_step(engine, tokens, rows, probe if step > 0 else None, visible, watch, number))
        else:
            steps.append({"hidden": engine.narrow(tokens, RowSet.of(rows[0]), visible).hidden})
        asking = random_bool(generator, batch, seq)
        steps[-1] |= {
            "rollout": engine.rollout(),
            "received": engine.attention_received(asking),
            "scores": engine.attention_scores(asking),
        }
    stored = {
        f"own {kind}": torch.stack([getattr(engine.store, kind)(layer) for layer in range(layers)])
        for kind in ("keys", "values")
    }
    return {"steps": steps, **stored}


def carried_step(engine, tokens, rows, probe, visible, watch, number):
    movements, drifts = [], []

    def choose(layer, movement):
        movements.append(movement)
        drifts.append(engine.attention_drift)
        return rows[layer]

    probing = None if probe is None else Probing(lambda layer: RowSet.of(probe[layer]), stores=bool(number % 2))
    hidden = engine.carried(tokens, choose, probing, visible, watch=watch).hidden
    return {"hidden": hidden, "movement": torch.stack(movements), "attention drift": torch.stack(drifts[1:])}


# Processes that would decide differently


def own_random(view_step, *shape):
    """Random numbers that differ from process to process."""
    seed = 100 * view_step + int(os.environ.get("RANK", "0"))
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@attrs.frozen
class Wayward(CachePolicy):
    """Rows and keys that no two processes choose alike."""

    name = "wayward"
    needs = frozenset({"attention_rollout", "attention_received"})

    def select(self, view):
        chosen, seen = own_random(view.step, 2, *view.shape)
        return Selection(predict=chosen < 0.4, refresh=chosen > 0.8, visible=(seen < 0.8) | view.in_block)


@attrs.frozen
class WaywardLayers(LayerwisePolicy):
    """The same in every layer."""

    name = "wayward-layers"
    needs = frozenset({"attention_drift"})

    def select(self, view):
        return Selection(predict=view.in_block, watch=own_random(view.step, *view.shape) < 0.5)

    def probe_layer(self, view, layer, layers, below):
        return own_random(view.step + 31 * layer, *view.shape) < 0.5

    def select_layer(self, view, layer):
        return own_random(view.step + 57 * layer.layer, *view.shape) < 0.5


@attrs.frozen
class WaywardDecoder(Decoder):
    """Tokens and positions that no two processes choose alike; some are taken back."""

    name = "wayward-decoder"
    revocable = True

    def verify(self, view):
        return view.in_block & ~view.is_masked & (own_random(view.step, *view.shape) < 0.5)

    def decode(self, view, prediction):
        chosen, drawn = own_random(view.step + 7, 2, *view.shape)
        first = prediction.positions & (prediction.positions.long().cumsum(dim=1) == 1)
        again = view.in_block & ~view.is_masked & (chosen > 0.9)
        return Commit((prediction.positions & (chosen < 0.6)) | first, (drawn * 50).long(), remask=again)


def decided(load, policy, decoder):
    """What is decided where every process would decide something else."""
    shown = run(load, "llada-grouped", policy=policy, decoder=decoder, block_length=4)
    names = ("tokens", "committed", "remasked", "refreshed")
    steps = [{name: step[name] for name in names} for step in shown["steps"]]
    return {"sequences": shown["sequences"], "counted": shown["counted"], "steps": steps}


def refused(load):
    """What a process is told that is given another prompt than its fellows, another seed, or another request."""
    rank, model = int(os.environ.get("RANK", "0")), load("llada")
    said = []
    for prompt, seed in ((rank, 0), (0, rank)):
        try:
            freshkv.generate(model, torch.tensor([[3, 1, prompt]]), gen_length=2, seed=seed, temperature=1.0)
        except freshkv.FreshkvError as error:
            said.append(f"{type(error).__name__}: {error}")
    try:  # the second request differs, which is not decoded at once
        list(freshkv.generate_many(model, [freshkv.Request([3, 1], seed=seed) for seed in (0, rank)], batch_size=1))
    except freshkv.FreshkvError as error:
        said.append(f"{type(error).__name__}: {error}")
    return {"said": said}


def cases():
    """Name -> a function of ``load``, which takes the name of a checkpoint."""
    found = {f"logits of {name}": (logits, name) for name in CHECKPOINTS}
    some = ("confidence", "threshold:threshold=0.02", "entropy-bound:gamma=2")
    for number, policy in enumerate(POLICIES):
        found[f"llada with {policy}"] = (run, "llada", {"policy": policy, "block_length": 4, "stop_at_eos": True})
        options = {"policy": policy, "decoder": some[number % 3], "block_length": 4}
        found[f"dream with {policy}"] = (run, "dream", options)
    for name in ("qwen3-blocks", "llada-moe-mixed", "llama3"):
        found[f"{name} with d2cache"] = (run, name, {"policy": "d2cache:current_k=3"})
    for decoder in DECODERS:
        found[f"decoder {decoder}"] = (run, "dream", {"policy": "d2cache:current_k=3", "decoder": decoder})
    sampled = {"policy": "dllm:kp=4,kr=3", "temperature": 1.0, "top_p": 0.9, "top_k": 20}
    found["sampled"] = (run, "llada-grouped", {**sampled, "decoder": "confidence:score=random"})
    for policy in ("dllm:kp=4,kr=3", "d2cache:current_k=3", "dual", "oracle"):
        options = {"policy": policy, "decoder": "threshold:threshold=0.02"}
        found[f"served with {policy}"] = (served, "dream", options)
    for policy in ("dual", "dllm:kp=9,kr=9"):
        found[f"drift of {policy}"] = (drift, "dream", {"policy": policy})
    return found | schedules() | disagreements()


def schedules():
    return {
        f"{'carried' if carried else 'narrow'} schedule {number}": (schedule, number, {"carried": carried})
        for number in range(SCHEDULES)
        for carried in (False, True)
    }


def disagreements():
    names = {"confidence": "confidence", "wayward-decoder": WaywardDecoder()}
    return {
        f"decisions of {policy.name} and {name}": (decided, policy, {"decoder": decoder})
        for policy in (Wayward(), WaywardLayers())
        for name, decoder in names.items()
    }


def results(load):
    """Of all cases."""
    found = {}
    for name, (case, first, *options) in cases().items():
        found[name] = case(load, first, **(options[0] if options else {}))
    return found


def of_one_process(folder):
    """What one process computes with the checkpoints in ``folder``."""
    return results(cache(lambda name: freshkv.load(folder / name, dtype="float64")))


def write_checkpoints(folder):
    for name, write in CHECKPOINTS.items():
        write(folder / name)


def start(folder):
    """Processes that compute the cases together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [PROCESSES.Process(target=_work, args=(rank, port, str(folder)), daemon=True) for rank in range(PARTS)]
    for process in processes:
        process.start()
    return processes


def outcome(folder, processes, seconds=900):
    """What each of them computed; raises with what the first that failed said."""
    for process in processes:
        process.join(seconds)
    failures = [file.read_text() for file in sorted(Path(folder).glob("*.txt"))]
    for process in processes:
        process.kill()
    if failures or any(process.exitcode != 0 for process in processes):
        raise AssertionError("\n".join(failures) or f"exit codes {[process.exitcode for process in processes]}")
    return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(PARTS)]


def _work(rank, port, folder):
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PARTS, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {**{name: str(value) for name, value in told.items()}, "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    try:
        load = cache(lambda name: freshkv.load(Path(folder) / name, dtype="float64", tensor_parallel=True))
        found = results(load) | {"refused": refused(load), "parts": division_of(load("llada")).parts}
        torch.save(found, Path(folder) / f"{rank}.pt")
        torch.distributed.destroy_process_group()
    except BaseException:
        (Path(folder) / f"{rank}.txt").write_text(f"process {rank}: {traceback.format_exc()}")
        os._exit(1)  # its fellows wait for it: nothing is to be closed
