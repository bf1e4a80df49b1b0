"""Each guard fires when it must, and is silent otherwise."""

from pathlib import Path

import pytest
from attrs import evolve

from freshkv.compare import Entrant, FairnessWarning, Setting, check_fairness
from freshkv.compare.guards import time_spread
from tests.compare.test_summary import make_results, record, with_lineup

FAIR = {"batch_size": 1, "block_length": 16}


def fair(policies=("none", "d2cache:current_k=4"), count=200, **changes):
    """Results without a fault, but for ``changes`` of all records."""
    records = [record(policy, i, **changes) for i in range(count) for policy in policies]
    results = make_results(*records, policies=policies)
    results.header.experiment.update(FAIR)
    return results


def guards(*results):
    return {warning.guard for warning in check_fairness(*results)}


def only(guard, *results):
    found = [warning for warning in check_fairness(*results) if warning.guard == guard]
    assert len(found) == 1
    assert str(found[0]) == f"{found[0].message} {found[0].mend}"
    return str(found[0])


def test_a_fair_comparison_is_left_alone():
    assert check_fairness(fair()) == ()


def test_files_that_differ_in_more_than_the_policies():
    one, other = fair(), fair(policies=("none", "dual:x=1"))
    assert guards(one, evolve(other, path=Path("other.jsonl"))) == set()
    other.header.experiment["block_length"] = 32
    other = evolve(other, path=Path("other.jsonl"), header=evolve(other.header, environment={"threads": 4}))
    text = only("experiments-differ", one, other)
    assert "r.jsonl and other.jsonl differ in more than the policies: block_length and threads." in text


def test_files_of_a_sweep_are_comparisons_of_their_own():
    one, other = fair(), fair()
    other.header.experiment["block_length"] = 32
    assert guards(one, evolve(other, path=Path("other.jsonl"))) == set()


def test_policies_with_decoders_of_their_own():
    policies = ("none", "dual:a=1", "d2cache:current_k=4")
    records = [record("none", i, decoder=d) for i in range(200) for d in ("confidence", "threshold")]
    records += [record("dual:a=1", i, decoder=d) for i in range(200) for d in ("confidence", "threshold")]
    records += [record("d2cache:current_k=4", i, decoder="threshold") for i in range(200)]
    results = make_results(*records, policies=policies, decoders=("confidence", "threshold"))
    text = only("decoders-differ", results)
    assert "d2cache:current_k=4 with threshold only. The order of decoding differs, too." in text


def test_an_entry_with_fewer_problems():
    results = fair()
    results = evolve(results, sequences=results.sequences[:-1])
    assert "d2cache:current_k=4 with confidence on sums (199 of 200)" in only("problems-differ", results)


def test_batches_of_another_size():
    results = fair()
    assert "batches-differ" not in guards(results)
    last = evolve(results.sequences[-1], batch=2)
    results = evolve(results, sequences=(*results.sequences[:-1], last))
    assert "decoded in other batches by d2cache:current_k=4" in only("batches-differ", results)


def test_repeats_with_other_tokens():
    results = fair()
    again = evolve(results.sequences[-1], repeat=1)
    assert guards(evolve(results, sequences=(*results.sequences, again))) == set()
    again = evolve(again, response=(7, 7))
    assert guards(evolve(results, sequences=(*results.sequences, again))) == {"not-deterministic"}


def test_budgets_that_are_not_met_on_the_problems_compared():
    entrants = (Entrant(policy="none", given="none"), Entrant(policy="dual:a=1", given="dual:a=1", is_matched=True))
    setting = Setting(task="sums", decoder="confidence", entrants=entrants, target=0.5)
    met = with_lineup(fair(policies=("none", "dual:a=1"), rows_computed=10.4), setting)
    assert "budgets-missed" not in guards(met)
    missed = with_lineup(fair(policies=("none", "dual:a=1"), rows_computed=12.0), setting)
    assert "dual:a=1 with confidence on sums (+10 points)" in only("budgets-missed", missed)


def test_defaults_that_were_chosen_for_other_tasks():
    text = only("tuned-elsewhere", fair(policies=("none", "d2cache", "dllm:kr=4", "dual")))
    assert "those of d2cache for LLaDA-8B and Dream-7B on gsm8k" in text
    assert "This is tiny on sums. Choose the options" in text
    assert "dllm" not in text
    assert "tuned-elsewhere" not in guards(fair(policies=("none", "dllm:kr=4", "unheard-of")))
    there = fair(policies=("none", "d2cache"), task="gsm8k")
    there.header.experiment["tasks"] = ["gsm8k"]
    assert "tuned-elsewhere" not in guards(there)


def test_a_bundled_model_that_was_trained_with_such_caches():
    results = fair(policies=("none", "prefix", "d2cache:current_k=4"))
    assert "imitated-in-training" not in guards(results)
    results = evolve(results, header=evolve(results.header, model="tiny-llada"))
    assert "favours prefix: its accuracies" in only("imitated-in-training", results)
    other = fair()
    assert guards(evolve(other, header=evolve(other.header, model="tiny-llada"))) == set()


def test_too_few_problems_and_how_many_it_takes():
    text = only("too-few-problems", fair(count=20))
    assert "In 1 of 1 comparisons with the uncached run, a loss of 2 points is neither shown nor excluded." in text
    assert "takes about 890 problems of each task" in text
    records = [record("none", i) for i in range(20)] + [record("dual:a=1", i, correct=False) for i in range(20)]
    assert "too-few-problems" not in guards(make_results(*records, policies=("none", "dual:a=1")))


@pytest.mark.parametrize("work", ["rows_computed", "forwards"])
def test_a_busy_machine(work):
    quiet = [record("none", i, seconds=1 + 0.01 * (i % 3)) for i in range(12)]
    assert time_spread(quiet) < 0.05
    larger = [evolve(each, seconds=each.seconds * (1 + i), **{work: (1 + i) * 2}) for i, each in enumerate(quiet)]
    assert time_spread(larger) < 0.05  # more work takes longer
    busy = [record("none", i, seconds=1 + 0.5 * (i % 3)) for i in range(12)]
    text = only("busy-machine", make_results(*busy))
    assert "the middle half of the uncached run's times is spread over" in text
    assert "busy-machine" not in guards(make_results(*busy[:5]))
    assert "busy-machine" not in guards(make_results(*quiet))


def test_sequences_that_were_timed_beside_other_workers():
    results = fair(policies=("none",), count=3)
    assert guards(results) == set()
    last = evolve(results.sequences[-1], workers=4)
    text = only("side-by-side", evolve(results, sequences=(*results.sequences[:-1], last)))
    assert text.startswith("1 of 3 sequences were timed while up to 4 workers computed on one machine")


def test_an_oracle_whose_seconds_are_not_those_of_a_cache():
    results = fair(policies=("none", "oracle:budget=0.2", "oracle:budget=0.3", "random"))
    assert "An uncached pass runs beside oracle: its seconds and memory" in only("truth-beside", results)


def test_a_warning_is_told_once():
    results = fair(count=20)
    warnings = check_fairness(results, results)
    assert len(warnings) == len(set(warnings)) == 1
    assert isinstance(warnings[0], FairnessWarning)
