"""``freshkv compare`` with grids, experiment files and earlier results."""

import json
from pathlib import Path

import pytest

from freshkv.compare import read_results, read_sweep

EXAMPLE = Path(__file__).parents[2] / "examples" / "sweep.toml"
QUICK = ("--decoder", "confidence")


def words(result):
    """Standard output without its line ends."""
    return " ".join(result.stdout.split())


@pytest.fixture
def study(checkpoint, tmp_path):
    """A file of a small sweep."""
    path = tmp_path / "study.toml"
    path.write_text(
        f'tasks = ["weave"]\npolicies = ["dual", "d2cache:current_k=2|4"]\nproblems = 1\ngen_length = 8\n'
        f"model = {json.dumps(checkpoint)}\n[sweep]\nblock_length = [4, 8]\n"
    )
    return path


def test_a_grid_is_written_out_and_its_front_shown(invoke, small):
    result = invoke("compare", *small, *QUICK, "--policy", "d2cache:current_k=2..8..*2")
    assert result.exit_code == 0, result.output
    assert all(f"\n  d2cache:current_k={k} " in result.stdout for k in (2, 4, 8))
    assert "on the Pareto front" in result.stdout
    assert "front: no other entry is at least as accurate" in words(result)


def test_without_a_grid_there_is_no_front(invoke, small):
    assert "Pareto" not in invoke("compare", *small, *QUICK).stdout


def test_a_sweep_has_a_table_for_each_experiment_and_one_front(invoke, study, tmp_path):
    result = invoke("compare", study)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("Results: results/study/") == 2
    assert result.stdout.count("on the Pareto front") == 1
    assert "block_length=4" in result.stdout
    assert "8 sequences; results go to results/study" in result.stderr
    names = [results.path.name for results in read_sweep(tmp_path / "results" / "study")]
    assert names == ["block_length=4.jsonl", "block_length=8.jsonl"]
    again = invoke("compare", study)
    assert "All 8 sequences are in results/study from an earlier run." in again.stderr
    assert again.stdout == result.stdout


def test_options_replace_what_the_file_says(invoke, study, tmp_path):
    result = invoke("compare", study, "--block-length", 2, "--policy", "dual", "--output", "out.jsonl")
    assert result.exit_code == 0, result.output
    facts = read_results(tmp_path / "out.jsonl").header.experiment
    assert (facts["block_length"], facts["policies"], facts["problems"]) == (2, ["none", "dual"], 1)


def test_the_example_runs(invoke):
    result = invoke("compare", EXAMPLE, "--problems", 1, "--gen-length", 16, "--policy", "d2cache:current_k=8|16")
    assert result.exit_code == 0, result.output
    assert "tiny-dream, weave" in result.stdout
    assert len(list(Path("results/sweep").glob("*.jsonl"))) == 4
    assert f"`{EXAMPLE.name}`" in (EXAMPLE.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", ["toml", "yaml"])
def test_a_file_that_is_written_runs_to_the_same_results(invoke, small, tmp_path, ending):
    options = (*small, *QUICK, "--policy", "d2cache:current_k=2|4", "--seed", 3)
    written = invoke("compare", *options, "--write-experiment", f"study.{ending}")
    assert written.stdout == f"Wrote study.{ending}. To run it: freshkv compare study.{ending}\n"
    assert not (tmp_path / "results").exists()
    invoke("compare", *options, "--output", "a.jsonl")
    assert invoke("compare", f"study.{ending}", "--output", "b.jsonl").exit_code == 0
    first, second = read_results(tmp_path / "a.jsonl"), read_results(tmp_path / "b.jsonl")
    assert first.header.experiment == second.header.experiment
    assert [r.response for r in first.sequences] == [r.response for r in second.sequences]


def test_results_are_measured_again(invoke, small, tmp_path):
    invoke("compare", *small, *QUICK, "--policy", "dual", "--output", "a.jsonl")
    result = invoke("compare", "--like", "a.jsonl")
    assert result.exit_code == 0, result.output
    assert "The same tokens as in a.jsonl in 2 of 2 sequences." in words(result)
    assert len(read_results(tmp_path / "a-again.jsonl").sequences) == 2


def test_results_are_continued_by_themselves(invoke, small, tmp_path):
    invoke("compare", *small, *QUICK, "--policy", "dual", "--output", "a.jsonl")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    result = invoke("compare", "--resume", "a.jsonl")
    assert "Continuing a.jsonl: 1 of 2 sequences are there." in result.stderr
    assert len(read_results(path).sequences) == 2


def test_a_plot_is_drawn(invoke, small, tmp_path):
    pytest.importorskip("plotly", reason="needs plotly: pip install 'freshkv[report]'")
    result = invoke("compare", *small, *QUICK, "--policy", "dual", "--plot", "fronts.html")
    assert "Plot: fronts.html" in result.stdout
    assert "dual with confidence" in (tmp_path / "fronts.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dual",), "dual is no experiment file by its name"),
        (("study.toml",), "Cannot read the experiment file study.toml"),
        (("study.toml", "--like", "a.jsonl"), "an experiment file and --like exclude each other"),
        (("--like", "a.jsonl", "--resume", "a.jsonl"), "--like and --resume exclude each other"),
        (("--policy", "d2cache:current_k=8..16"), "cannot read the range '8..16'"),
        (("--policy", "d2cache:current_k=1..2000..1"), "has 2000 values; at most 1000"),
        (("--plot", "fronts.doc"), "is no plot by its name"),
        (("--write-experiment", "study.ini"), "study.ini is no experiment file by its name"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(invoke, arguments, message):
    result = invoke("compare", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("results").exists()


def test_what_results_say_cannot_be_replaced(invoke, small):
    invoke("compare", *small, *QUICK, "--policy", "dual", "--output", "a.jsonl")
    result = invoke("compare", "--like", "a.jsonl", "--problems", 3, "--seed", 1, "--raw")
    assert (result.exit_code, result.stderr) == (
        2, "Error: --like runs what a.jsonl says; leave out --problems, --seed, --raw.\n",
    )  # fmt: skip
    result = invoke("compare", "--resume", "a.jsonl", "--output", "b.jsonl")
    assert "leave out --output" in result.stderr
    result = invoke("compare", "--like", "a.jsonl", "--model", "tiny-dream")
    assert (result.exit_code, "is not the model of a.jsonl" in result.stderr) == (1, True)
