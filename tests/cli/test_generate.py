"""``freshkv generate``: an answer, its steps, its trace."""

import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from freshkv import Trace
from freshkv.cli.live import StepDisplay, pair_lines, row_marks
from freshkv.compare import Experiment, run_experiment
from tests.compare.checkpoint import build_tokenizer


@pytest.fixture
def short(checkpoint):
    return ("--model", checkpoint, "--gen-length", 8, "--block-length", 4)


def test_the_answer_is_all_of_standard_output(invoke, short):
    result = invoke("generate", *short, "--task", "weave", "--policy", "dual")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.split()) <= 8
    assert result.stdout.count("\n") == 1
    assert result.stderr.startswith("prompt: weave ")
    assert "solved: no, expected " in result.stderr
    assert "8 forwards, 37% of the canvas computed in each" in result.stderr


def test_a_problem_is_that_of_compare(invoke, short, checkpoint, tmp_path):
    trial = Experiment(
        model=checkpoint,
        tasks="weave",
        policies="none",
        problems=3,
        seeds=4,
        gen_length=8,
        block_length=4,
        temperature=1,
    )
    records = run_experiment(trial, tmp_path / "r.jsonl").sequences
    arguments = ("--task", "weave", "--problem", 2, "--seed", 4, "--temperature", 1)
    assert invoke("generate", *short, *arguments).stdout.strip() == records[2].text


def test_a_text_of_ones_own_with_unknown_words_is_answered_with_a_warning(invoke, short):
    result = invoke("generate", *short, "--prompt", "sums of clouds")
    assert result.exit_code == 0
    assert "does not know 2 of the prompt's 3 tokens" in result.stderr


def test_without_a_prompt_the_first_task_is_answered(invoke, short):
    assert "prompt: sums " in invoke("generate", *short).stderr


def test_an_empty_prompt_is_refused(invoke, short):
    result = invoke("generate", *short, "--prompt", "")
    assert result.exit_code == 2
    assert "The prompt is empty" in result.stderr


def test_the_trace_is_saved(invoke, short, tmp_path):
    result = invoke("generate", *short, "--policy", "d2cache:current_k=2", "--trace", "run.safetensors")
    assert "trace: run.safetensors" in result.stderr
    trace = Trace.load(tmp_path / "run.safetensors")
    assert len(trace) == 8
    assert trace.facts["policy"] == "d2cache:current_k=2"


def test_a_model_without_a_tokenizer_is_explained(invoke, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "bare")
    (tmp_path / "bare/tokenizer.json").unlink()
    result = invoke("generate", "--model", "bare")
    assert result.exit_code == 2
    assert "holds no tokenizer" in result.stderr


def test_a_chat_template_is_used_unless_raw(invoke, checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint, tmp_path / "chat"))
    (folder / "chat_template.jinja").write_text("weave {{ messages[0]['content'] }} =")
    rows = {}
    for flag in ((), ("--raw",)):
        options = ("--gen-length", 4, "--block-length", 4, "--trace", "t", *flag)
        assert invoke("generate", "--model", folder, "--prompt", "1 2", *options).exit_code == 0
        rows[flag] = Trace.load(tmp_path / "t").prompt_length
    assert rows == {(): 4, ("--raw",): 2}


def test_live_outside_a_terminal_is_a_line_a_step(invoke, short):
    result = invoke("generate", *short, "--task", "weave", "--policy", "dual", "--live")
    steps = [line for line in result.stderr.splitlines() if line.startswith("step ")]
    assert len(steps) == 8
    assert steps[0].startswith("step 1: 26 of 26 rows computed, committed ")
    assert steps[1].startswith("step 2: 4 of 26 rows computed")
    assert "tokens/s" not in result.stderr


def test_ctrl_c_is_no_traceback(invoke, short, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("freshkv.core.generate.run_canvas", interrupted)
    result = invoke("generate", *short)
    assert result.exit_code == 130
    assert result.stderr.endswith("Stopped.\n")


@pytest.fixture
def trace(checkpoint):
    import freshkv

    model = freshkv.load(checkpoint)
    tokens = torch.tensor([[1, 2, 3]])
    return freshkv.generate(model, tokens, policy="dllm:kr=4,rou=0.25", gen_length=8, block_length=4).trace


def test_a_frame_shows_commits_masks_and_rows_without_colour(trace):
    console = Console(width=75, color_system=None)
    display = StepDisplay(build_tokenizer(), trace.mask_token_id, trace.prompt_length, delay=0.0)
    with console.capture() as capture:
        console.print(display.frame(trace[1], console))
    lines = capture.get().splitlines()
    assert lines[2] == "+++"  # layer 0 refreshes everything; the others rest
    response, rows = lines[4:6]
    assert response.count("_") == 6
    assert response.count("[") == 1
    assert (rows.count("+") + rows.count("#"), rows.count("#") > 0) == (8, True)
    assert len(lines) == 7


def test_marks_tell_all_layers_from_some(trace):
    assert set(row_marks(trace[0])) == {"#"}
    assert set(row_marks(trace[1])) == {"#", "+"}


def test_marks_stand_below_their_tokens():
    lines = [line.plain for line in pair_lines([" 1 ", "[long]", " _ "], ["#", ".", "+"], width=10)]
    assert lines == [" 1 [long]", " #  .    ", " _ ", " + "]


def test_live_in_a_terminal_draws_every_step(trace, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    display = StepDisplay(build_tokenizer(), trace.mask_token_id, trace.prompt_length, delay=0.0)
    with display:
        for step in trace:
            display.show(step)
    assert "committed" in capsys.readouterr().err


def test_weights_are_quantised_on_request(invoke, checkpoint):
    pytest.importorskip("torchao")
    lengths = ("--gen-length", 4, "--block-length", 4)
    done = invoke("generate", "--model", checkpoint, "--task", "weave", *lengths, "--quantise", "int8")
    assert done.exit_code == 0, done.output


def test_an_unknown_quantisation_is_refused(invoke, checkpoint):
    done = invoke("generate", "--model", checkpoint, "--task", "weave", "--quantise", "int9")
    assert done.exit_code != 0
    assert "Unknown quantisation 'int9'. Did you mean 'int8'" in done.output


def test_published_settings_are_those_of_the_checkpoint(invoke, checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "LLaDA-Instruct")
    lengths = ("--gen-length", 32, "--block-length", 4, "--temperature", 1.0, "--trace", "trace.safetensors")
    done = invoke("generate", "--model", folder, "--task", "weave", *lengths, "--published")
    assert done.exit_code == 0, done.output
    facts = Trace.load(tmp_path / "trace.safetensors").facts
    assert (facts["block_length"], facts["temperature"], facts["top_p"]) == (32, 0.0, None)
    done = invoke("generate", "--model", checkpoint, "--task", "weave", *lengths, "--published")
    assert "does not say whether this is a Base or an Instruct model" in " ".join(done.output.split())
