"""Commands of the pages that need GPUs or downloads: their options are right, and a plan of them can be made."""

import re
import shlex

import pytest
from lm_eval._cli.utils import key_val_to_dict
from typer.testing import CliRunner

from freshkv.cli import app
from freshkv.evaluation.model_args import ModelOptions
from tests.docs.pages import ROOT, Page

PAGES = [Page.read(ROOT / "docs/how-to" / name) for name in ("evaluate.md", "plan-a-reproduction.md")]
LINES = [
    line for page in PAGES for block in page.blocks if block.language == "text" for line in block.text.splitlines()
]
LAUNCHER = re.compile(r"(accelerate launch --num_processes|torchrun --nproc-per-node) \d+ -m ")


def commands(program):
    return [line for line in (LAUNCHER.sub("", line) for line in LINES) if line.startswith(f"{program} ")]


@pytest.mark.parametrize("policy", ["none", "dllm", "prefix", "d2cache"])
@pytest.mark.parametrize("command", commands("freshkv"))
def test_an_evaluation_that_is_named_can_be_planned(command, policy):
    words = shlex.split(command.replace("POLICY", policy))[1:]
    measured = [] if "--step-ms" in words else ["--step-ms", "40"]
    result = CliRunner().invoke(app, [*words, *([] if "--plan" in words else ["--plan"]), *measured])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", commands("lm_eval"))
def test_the_options_of_a_model_that_are_named_exist(command):
    words = shlex.split(command)
    options = ModelOptions.read(key_val_to_dict(words[words.index("--model_args") + 1]))
    assert options.pretrained == "GSAI-ML/LLaDA-8B-Instruct"


def test_there_are_commands_of_both_kinds():
    assert len(commands("freshkv")) >= 8
    assert len(commands("lm_eval")) == 3


def test_the_table_of_options_has_all_of_them():
    names = {name for row in PAGES[0].table("option of `--model_args`") for name in re.findall(r"`(\w+)`", row[0])}
    assert names == {name for name in ModelOptions.__annotations__ if not name.startswith("_")}
