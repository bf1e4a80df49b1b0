"""``freshkv compare`` from options to table."""

import json
import sys

import pytest
from attrs import frozen
from rich.console import Console

from freshkv import CachePolicy
from freshkv.cli.progress import ProgressDisplay
from freshkv.cli.regret_table import regret_table
from freshkv.cli.table import comparison_table, fold_spec
from freshkv.compare import EntrySummary, Progress, Regret, Scale, Speedup, runner
from freshkv.compare.progress import preparation
from freshkv.compare.statistics import compare_pairs
from freshkv.core import registry
from freshkv.core.errors import ResultsError

FIVE = ("none", "prefix", "dual", "dllm", "d2cache")


def test_the_table_has_every_policy_and_column(invoke, small):
    result = invoke("compare", *small)
    assert result.exit_code == 0, result.output
    table = result.stdout
    assert all(f"\n  {policy} " in table for policy in FIVE)
    for column in ("racy", "interval", "vs", " p ", "same as", "tokens", "speed-", "wards", "rows/"):
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


def test_doubts_follow_the_findings(invoke, small):
    result = invoke("compare", *small, "--decoder", "confidence")
    findings, doubts = " ".join(result.stdout.split()).split("Before you conclude:")
    assert "no smaller one." in findings
    assert "- Defaults were chosen elsewhere, those of dllm for no task in particular" in doubts
    assert "- In 4 of 4 comparisons with the uncached run, a loss of 2 points is neither shown nor excluded." in doubts


def test_budgets_are_matched_and_regret_is_shown(invoke, small):
    arguments = ("--policy", "d2cache", "--decoder", "confidence", "--match-budget", "dual", "--regret")
    result = invoke("compare", *small, *arguments, "--repeats", 2, "--output", "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "Budgets come first, measured on other problems; results go to out.jsonl" in result.stderr
    table, regret = result.stdout.split("random, oracle: policies that compute as many rows")
    assert "\n  d2cache:current_k=" in table
    assert "\n  dual" in table
    assert "oracle  place" in table
    assert "An uncached pass runs beside oracle" in " ".join(regret.split())
    again = invoke("compare", *small, *arguments, "--repeats", 2, "--output", "out.jsonl")
    assert again.stdout == result.stdout
    assert "are in out.jsonl from an earlier run" in again.stderr
    assert "Budgets come first" not in again.stderr


def test_a_budget_that_is_none_is_refused(invoke, small):
    result = invoke("compare", *small, "--match-budget", "1.5")
    assert result.exit_code == 2
    assert "match_budget is '1.5'; expected a policy, or a share of the canvas" in result.stderr
    assert "Did you mean 'dual'" in invoke("compare", *small, "--match-budget", "dul").stderr


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


def summary(policy, decoder="confidence", **changes):
    fields = {
        "sequences": 1000, "accuracy": 0.5, "accuracy_interval": (0.45, 0.55), "agreement": 1.0,
        "paired": compare_pairs([True] * 500 + [False] * 500, [True] * 1000), "corrected_p": 0.0004,
        "tokens_per_second": 12345.6, "speed": Speedup(batches=1000, median=10.0, interval=(9.9, 10.1)),
        "forwards": 64.0, "rows_share": 1.0, "peak_bytes": 4 * 10**8, "cache_bytes": 10**6,
    }  # fmt: skip
    return EntrySummary(task="sums", policy=policy, decoder=decoder, **{**fields, **changes})


def drawn(table, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


LONG = "d2cache:rollout_p=0.25,current_k=16,inflate_w=4"


@pytest.mark.parametrize(("width", "without"), [(80, "12345.6"), (120, "peak"), (170, None)])
def test_the_table_fits_the_screen(width, without):
    rows = [
        summary(policy, decoder) for decoder in ("confidence", "threshold:threshold=0.8") for policy in ("none", LONG)
    ]
    lines = drawn(comparison_table(rows, Console(width=width)), width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    for number in ("0.50", "-50", "-53,-47", "<0.001", "10.00x", "9.90-10.10", "64", "100%"):
        assert number in text
    assert without is None or without not in text
    assert ("peakcache" in text) == (width == 170)


def test_a_long_spec_is_folded_behind_its_commas_at_80_columns():
    speed = Speedup(batches=20, median=1.8, interval=(1.75, 1.9))
    rows = [summary(policy, speed=speed, corrected_p=0.031) for policy in ("none", LONG)]
    column = [line[:17].strip() for line in drawn(comparison_table(rows, Console(width=80)), 80)]
    assert column[-4:] == ["d2cache:", "rollout_p=0.25,", "current_k=16,", "inflate_w=4"]


def test_references_are_not_in_the_table_but_in_that_of_regret():
    rows = [summary("none"), summary("dual"), summary("oracle:budget=0.2", role="oracle", given="dual")]
    assert "oracle" not in " ".join(drawn(comparison_table(rows, Console(width=120)), 120))
    scale = Scale(own=0.8, random=0.5, oracle=0.9)
    flat = Scale(own=1.0, random=1.0, oracle=1.0)
    regret = Regret(
        task="sums", decoder="confidence", policy=LONG, rows=flat, accuracy=flat, tokens=scale, first_divergence=scale,
        to_oracle=compare_pairs([True], [True]), corrected_p=1.0, tokens_interval=None,
    )  # fmt: skip
    lines = drawn(regret_table([regret]), 80)
    assert max(map(len, lines)) <= 80
    assert "100%    0.50  0.80    0.90   0.75    1.00  1.00    1.00      -" in " ".join(lines)


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


def test_progress_says_what_is_awaited_who_works_and_what_happened(tmp_path, capsys):
    display = ProgressDisplay(seconds_between_lines=0.0)
    with display:
        for stage, doing in (
            ("starting", "looking for Ray"),
            ("starting", "waiting for a worker"),
            ("budgets", "dual"),
        ):
            display.update(preparation(tmp_path, stage, doing))
        display.update(Progress(path=tmp_path, total=2, before=0, done=1, doing="none", workers=3, note="One died."))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Looking for Ray"
    assert lines[1] == "waiting for a worker, 0 s"
    assert lines[2].startswith("Budgets come first, measured on other problems; results go to")
    assert lines[3] == "One died."
    assert lines[-1] == "1 of 2 sequences, 0 s, workers: 3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--on", "rey"), "There is no place 'rey' to run on. Did you mean 'ray'"),
        (("--workers", 2), "--workers can only be given with --on ray; add that, or leave it out."),
        (("--address", "auto", "--workers", 2), "--address and --workers can only be given with --on ray"),
        (("--on", "ray", "--workers", 0), "workers is 0; expected a whole number of at least 1"),
    ],
)
def test_a_place_that_is_none_is_refused(invoke, small, arguments, message, tmp_path):
    result = invoke("compare", *small, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "results").exists()


def test_without_ray_the_command_says_what_to_install(invoke, small, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    result = invoke("compare", *small, "--on", "ray")
    assert result.exit_code == 2
    assert (
        "Running on Ray needs the package ray, which is not installed here: pip install 'freshkv[ray]'."
        in result.stderr
    )


def test_progress_in_a_terminal_is_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    display = ProgressDisplay()
    with display:
        display.update(Progress(path=tmp_path, total=2, before=0, done=1, doing="sums, none"))
    assert "1/2" in capsys.readouterr().err
