"""Commands under torchrun with tensor parallel give what one process gives, and only the first process speaks."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from freshkv import Trace
from freshkv.cli import app
from tests.evaluation import divided
from tests.evaluation.local_tasks import CHOICE, GENERATE, write_task
from tests.once import computed_once

ROOT = Path(__file__).parents[2]
PARTS = 2
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PARTS), "-m")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, checkpoint):
    """(what one process leaves, what two leave), and what they said."""
    return computed_once(tmp_path_factory, "commands", partial(compute, checkpoint=checkpoint))


def compute(folder, checkpoint):
    one, two = folder / "one", folder / "two"
    for place in (one, two):
        tasks = place / "tasks"
        tasks.mkdir(parents=True)
        rows = [{"prompt": f"1 2 {n}", "answer": "3"} for n in range(5)]
        write_task(tasks, "first", GENERATE, rows, max_gen_toks=8)
        write_task(tasks, "second", GENERATE, rows[:2], max_gen_toks=4)
        write_task(tasks, "choices", CHOICE, [{"prompt": "1 2", "choices": ["3", "4 5"], "right": 0}])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *LAUNCHER, "tests.evaluation.divided", str(two), checkpoint]
    done = subprocess.run(command, cwd=two, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = divided.run_all(one, checkpoint) | {"harness": divided.harness(one, checkpoint)}
    (one / "said-0.json").write_text(json.dumps(alone))
    return one, two


def said(folder, rank=0):
    return json.loads((folder / f"said-{rank}.json").read_text())


def task(folder, name, place="out"):
    return json.loads((folder / place / "results.json").read_text())["tasks"][name]


def texts(folder):
    lines = (folder / "out" / "samples-first.jsonl").read_text().splitlines()
    return {sample["doc_id"]: sample["resps"][0][0] for sample in map(json.loads, lines)}


@pytest.mark.parametrize("command", ["eval", "again", "choices", "generate"])
def test_every_command_succeeds_and_only_the_first_process_speaks(command, folders):
    _, two = folders
    first, second = said(two)[command], said(two, rank=1)[command]
    assert first["code"] == 0, first["stderr"]
    assert first["stdout"] != ""
    assert (second["code"], second["stdout"]) == (0, "")
    bars = re.compile(r"^(.*\d+%.*|Generating test split: .*)?$")  # lm-eval's own
    assert [line for line in re.split(r"[\r\n]", second["stderr"]) if not bars.match(line)] == []


def test_answers_scores_and_counts_are_those_of_one_process(folders):
    one, two = (task(folder, "first") for folder in folders)
    assert one["scores"] == two["scores"]
    assert one["problems"] == two["problems"] == {"first": 5}
    assert (one["model"]["processes"], two["model"]["processes"]) == (1, PARTS)
    assert two["model"]["options"]["tensor_parallel"] is True
    for counted in ("answers", "answer_tokens", "forwards", "rows_computed", "rows_total"):
        assert two["generation"][counted] == pytest.approx(one["generation"][counted]), counted
    assert texts(folders[0]) == texts(folders[1])


def test_log_likelihoods_are_those_of_one_process(folders):
    def likelihoods(folder):
        lines = "".join(path.read_text() for path in (folder / "choices" / "responses").iterdir()).splitlines()
        records = [json.loads(line) for line in lines]
        return sorted((record["log_likelihood"], record["is_greedy"]) for record in records)

    one, two = (likelihoods(folder) for folder in folders)
    assert len(one) == 2
    assert [greedy for _, greedy in one] == [greedy for _, greedy in two]
    assert [value for value, _ in two] == pytest.approx([value for value, _ in one], rel=1e-5)


def test_only_the_first_process_keeps_answers_and_all_go_on_from_them(folders):
    _, two = folders
    (kept,) = (two / "out" / "responses").iterdir()
    assert len(kept.read_text().splitlines()) == 5
    assert "5 of 5 answers are in" in said(two)["again"]["stderr"]


def test_a_single_answer_is_that_of_one_process(folders):
    one, two = folders
    assert said(one)["generate"]["stdout"] == said(two)["generate"]["stdout"]
    traces = [Trace.load(folder / "trace.safetensors") for folder in folders]
    for steps in zip(*traces, strict=True):
        assert steps[0].tokens.equal(steps[1].tokens)
        assert steps[0].refreshed.equal(steps[1].refreshed)


def test_lm_eval_itself_has_the_model_held_together_and_shows_it_once(folders):
    one, two = (said(folder)["harness"] for folder in folders)
    assert (one.pop("processes"), two.pop("processes")) == (1, PARTS)
    assert said(folders[1], rank=1)["harness"] is None
    for counted in ("exact_match", "answers", "answer_tokens", "forwards", "rows_computed"):
        assert two[counted] == pytest.approx(one[counted]), counted
    assert two["answers"] == 2


@pytest.mark.parametrize("command", ["eval", "choices", "generate"])
def test_without_a_launcher_it_is_said_before_any_work(command, tmp_path, checkpoint, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    line = divided.commands(tmp_path, checkpoint, "--tensor-parallel")[command]
    result = CliRunner().invoke(app, [str(word) for word in line])
    assert result.exit_code == 2
    assert "torchrun" in result.stderr
