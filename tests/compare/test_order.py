"""Works are done in any order by several workers: nothing that reads a results file depends on it."""

import random

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from freshkv.compare import (
    Experiment,
    check_fairness,
    compare_runs,
    describe_findings,
    describe_regret,
    find_candidates,
    measure_regret,
    read_results,
    run_experiment,
    summarize,
)
from freshkv.compare.cases import all_cases
from freshkv.compare.records import SequenceRecord, from_line, to_line
from freshkv.compare.report.markdown import markdown_table
from freshkv.compare.report.paper import paper_table
from freshkv.compare.report.sources import read_sources
from freshkv.compare.results import parse_results
from freshkv.compare.runner import works_left
from freshkv.compare.store import drop_cut_batch
from freshkv.models.tokenizer import load_tokenizer
from tests.compare.conftest import Broken

BATCH_SIZE = 2


@pytest.fixture(scope="module")
def trial(checkpoint):
    """With everything that makes keys differ, and a policy that fails."""
    return Experiment(
        model=checkpoint, tasks=["weave", "sums"], policies=["dual", Broken()], decoders=["confidence", "threshold"],
        problems=3, repeats=2, seeds=[0, 1], batch_size=BATCH_SIZE, gen_length=4, block_length=4, regret=True,
        threads=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(trial, tmp_path_factory):
    """Results with times that are no round numbers."""
    path = tmp_path_factory.mktemp("order") / "r.jsonl"
    run_experiment(trial, path)
    randomness = random.Random(0)
    header, *lines = path.read_bytes().splitlines(keepends=True)
    records = [from_line(line) for line in lines]
    timed = [
        evolve(r, seconds=randomness.uniform(0.1, 0.3), rows_computed=r.rows_computed / 3)
        if isinstance(r, SequenceRecord)
        else r
        for r in records
    ]
    path.write_bytes(header + b"".join(map(to_line, timed)))
    return read_results(path)


@pytest.fixture(scope="module")
def cases(trial):
    return all_cases(trial, load_tokenizer(trial.model))


def batches_of(results):
    """The lines of a file as they were appended: those of a batch at once."""
    header, *lines = results.path.read_bytes().splitlines(keepends=True)
    batches = {}
    for line in lines:
        r = from_line(line)
        key = (r.entry, r.task, r.seed, r.problem // BATCH_SIZE, r.repeat) if isinstance(r, SequenceRecord) else line
        batches.setdefault(key, []).append(line)
    return header, list(batches.values())


def shuffled(results, seed):
    header, batches = batches_of(results)
    random.Random(seed).shuffle(batches)
    return header + b"".join(line for batch in batches for line in batch)


def told(results):
    """All that is said of results."""
    regrets, summaries, sources = measure_regret(results), summarize(results), read_sources([results.path])
    return (
        summaries, describe_findings(summaries), regrets, describe_regret(regrets), find_candidates([results]),
        check_fairness(results), *(markdown_table(paper_table(source)) for source in sources),
    )  # fmt: skip


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_what_is_said_of_results_does_not_depend_on_their_order(whole, seed):
    path = whole.path.with_name("shuffled") / whole.path.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(shuffled(whole, seed))
    other = read_results(path)
    for one, same in zip(told(whole), told(other), strict=True):
        assert one == same
    assert compare_runs(whole, other).same == len(whole.sequences)


@given(seed=st.integers(0, 2**32), share=st.floats(0, 1))
def test_a_file_in_any_order_and_cut_anywhere_is_continued_in_whole_batches(whole, trial, cases, seed, share):
    data = shuffled(whole, seed)
    start = len(data.splitlines(keepends=True)[0])
    results, size = parse_results(whole.path, data[: start + round(share * (len(data) - start))])
    kept, size = drop_cut_batch(results, data[:size])
    assert data.startswith(data[:size])
    assert data[size - 1 : size] == b"\n"
    left = works_left(trial, cases, kept)
    planned = {work.keys for work in works_left(trial, cases, evolve(whole, sequences=()))}
    assert {work.keys for work in left} <= planned, "a part of a batch would be decoded as a batch"
    keys = [(r.entry, r.case, r.repeat) for r in kept.sequences] + [key for work in left for key in work.keys]
    assert sorted(map(str, keys)) == sorted(str(key) for keys in planned for key in keys)
