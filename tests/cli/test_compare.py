"""``freshkv compare`` from options to table."""

import json

import pytest
from attrs import frozen
from rich.console import Console

from freshkv import CachePolicy
from freshkv.cli.progress import ProgressDisplay
from freshkv.cli.table import comparison_table, fold_spec
from freshkv.compare import EntrySummary, Progress, runner
from freshkv.core import registry
from freshkv.core.errors import ResultsError

FIVE = ("none", "prefix", "dual", "dllm", "d2cache")


def test_the_table_has_every_policy_and_column(invoke, small):
    result = invoke("compare", *small)
    assert result.exit_code == 0, result.output
    table = result.stdout
    assert all(f"\n  {policy} " in table for policy in FIVE)
    for column in ("racy", "interval", "same as", "tokens", "speed-", "wards", "rows/", "peak"):
        assert column in table
    assert "Results: results/" in table
    assert "10 sequences; results go to results/" in result.stderr
    assert "confidence" in table
    assert "threshold" in table
    assert "\x1b" not in result.output


def test_given_policies_and_decoders_are_crossed(invoke, small):
    result = invoke(
        "compare", *small, "--policy", "d2cache:current_k=2", "--decoder", "threshold", "--decoder", "confidence"
    )
    assert result.stdout.count("\n  none ") == result.stdout.count("\n  d2cache:current_k=2 ") == 2
    assert "4 sequences" in result.stderr


def test_a_second_run_continues(invoke, small, tmp_path):
    first = invoke("compare", *small, "--decoder", "confidence", "--output", "out.jsonl")
    path = tmp_path / "out.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    second = invoke("compare", *small, "--decoder", "confidence", "--output", "out.jsonl")
    assert "Continuing out.jsonl: 2 of 5 sequences are there." in second.stderr
    third = invoke("compare", *small, "--decoder", "confidence", "--output", "out.jsonl")
    assert "All 5 sequences are in out.jsonl from an earlier run." in third.stderr
    assert third.stdout == second.stdout
    assert first.exit_code == second.exit_code == third.exit_code == 0


def test_a_file_of_another_experiment_is_refused(invoke, small):
    invoke("compare", *small, "--output", "out.jsonl")
    result = invoke("compare", *small, "--output", "out.jsonl", "--seed", 5)
    assert result.exit_code == 1
    assert "seeds is 0 there and 5 here" in result.stderr


def test_ctrl_c_says_what_is_kept_and_how_to_continue(invoke, small, monkeypatch, tmp_path):
    calls = []
    original = runner.decode

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(runner, "decode", interrupted)
    result = invoke("compare", *small, "--decoder", "confidence", "--output", "out.jsonl")
    assert result.exit_code == 130
    assert "Stopped. 2 of 5 sequences are kept in out.jsonl; the same command continues from there." in result.stderr
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 3


def test_ctrl_c_while_loading_is_no_traceback(invoke, small, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "load", interrupted)
    result = invoke("compare", *small)
    assert (result.exit_code, result.stderr) == (130, "Stopped before the first sequence.\n")


def test_a_full_disk_is_one_message(invoke, small, monkeypatch):
    def full(*_):
        raise ResultsError("Cannot write to out.jsonl: No space left on device.")

    monkeypatch.setattr("freshkv.compare.store.ResultsFile.append", full)
    result = invoke("compare", *small)
    assert result.exit_code == 1
    assert "Error: Cannot write to out.jsonl: No space left on device." in result.stderr


def test_a_broken_policy_is_shown_and_the_others_go_on(invoke, small, monkeypatch):
    @frozen
    class Broken(CachePolicy):
        name = "broken"

        def select(self, view):
            raise IndexError("no such row")

    known = {**registry.policies(), "broken": Broken}
    monkeypatch.setattr(registry, "policies", lambda: known)
    result = invoke("compare", *small, "--policy", "broken", "--policy", "dual")
    assert result.exit_code == 1
    assert "Left out: broken with confidence (PolicyError: Broken.select raised IndexError" in result.stderr
    assert "failed" in next(line for line in result.stdout.splitlines() if line.startswith("  broken"))
    assert "broken with confidence failed on problem 0 of weave" in " ".join(result.stdout.split())
    assert "\n  dual " in result.stdout


def test_options_reach_the_header(invoke, small, tmp_path):
    arguments = ("--seed", 1, "--seed", 2, "--batch-size", 2, "--temperature", 0.5, "--top-k", 3, "--top-p", 0.9)
    result = invoke("compare", *small, *arguments, "--stop-at-eos", "--threads", 1, "--output", "deep/out.jsonl")
    assert result.exit_code == 0, result.output
    facts = json.loads((tmp_path / "deep/out.jsonl").read_text().splitlines()[0])["experiment"]
    wanted = {"seeds": [1, 2], "batch_size": 2, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "stop_at_eos": True}
    assert wanted.items() <= facts.items()


def summary(policy, decoder="confidence"):
    return EntrySummary(
        task="sums", policy=policy, decoder=decoder, sequences=1000, accuracy=0.5, accuracy_interval=(0.45, 0.55),
        agreement=1.0, tokens_per_second=12345.6, speedup=10.0, forwards=64.0, rows_share=1.0, peak_bytes=4 * 10**8,
        cache_bytes=10**6,
    )  # fmt: skip


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_screen(width):
    long = "d2cache:rollout_p=0.25,current_k=16,inflate_w=4"
    rows = [
        summary(policy, decoder) for decoder in ("confidence", "threshold:threshold=0.8") for policy in ("none", long)
    ]
    console = Console(width=width)
    with console.capture() as capture:
        console.print(comparison_table(rows, console))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    text = "".join(capture.get().split())
    assert "12345.6" in text
    assert "10.00x" in text
    assert ("peakcache" in text) == (width == 120)


def test_specs_break_behind_colons_and_commas():
    assert fold_spec("d2cache:current_k=16,sigma=5", 100) == "d2cache:current_k=16,sigma=5"
    assert fold_spec("d2cache:current_k=16,sigma=5", 21) == "d2cache:current_k=16,\nsigma=5"
    assert fold_spec("none", 2) == "none"


def test_progress_outside_a_terminal_is_lines(tmp_path, capsys):
    display = ProgressDisplay(seconds_between_lines=0.0)
    with display:
        for done in (0, 1):
            display.update(Progress(path=tmp_path, total=2, before=0, done=done, doing="sums, none"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("2 sequences; results go to")
    assert lines[-1].startswith("1 of 2 sequences")


def test_progress_in_a_terminal_is_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    display = ProgressDisplay()
    with display:
        display.update(Progress(path=tmp_path, total=2, before=0, done=1, doing="sums, none"))
    assert "1/2" in capsys.readouterr().err
