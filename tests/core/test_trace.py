"""A trace survives save and load, is plain JSON as a dictionary, and refuses files that are not one."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest
import torch
from attrs import frozen
from hypothesis import given
from safetensors.torch import save_file
from torch import Tensor

import freshkv
from freshkv import CachePolicy, Decoder, LayerView, LayerwisePolicy, StepRecord, StepView, Trace
from freshkv.core.errors import ResultsError
from freshkv.core.trace import BY_LAYER, RECORDED
from freshkv.testing import Problem, example_problem
from freshkv.testing.strategies import problems
from tests.core.support import any_decoder, any_policy, examples
from tests.core.test_properties_batch import uneven_problem


def assert_same_trace(first: Trace, second: Trace) -> None:
    assert len(first) == len(second)
    assert (first.prompt_length, first.mask_token_id) == (second.prompt_length, second.mask_token_id)
    assert dict(first.facts) == dict(second.facts)
    for one, other in zip(first, second, strict=True):
        for field in attrs.fields(StepRecord):
            here, there = getattr(one, field.name), getattr(other, field.name)
            if isinstance(here, Tensor):
                assert here.dtype == there.dtype
                assert torch.equal(here, there), field.name
            else:
                assert here == there, field.name


@examples(40)
@given(problem=problems(), policy=any_policy(), decoder=any_decoder())
def test_a_trace_survives_save_and_load(
    tmp_path_factory: pytest.TempPathFactory, problem: Problem, policy: CachePolicy, decoder: Decoder
) -> None:
    path = tmp_path_factory.getbasetemp() / "run.trace"
    trace = problem.run(policy, decoder).trace
    trace.save(path)
    assert_same_trace(Trace.load(path), trace)
    assert Trace.load(str(path)).to_dict() == trace.to_dict()


@examples(25)
@given(problem=problems(), policy=any_policy(), decoder=any_decoder())
def test_a_trace_as_a_dictionary_is_plain_json(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    run = problem.run(policy, decoder)
    text = json.dumps(run.trace.to_dict(), allow_nan=False)
    found = json.loads(text)
    assert [step["rows_computed"] for step in found["steps"]] == [step.rows_computed for step in run.trace]
    assert found["steps"][-1]["tokens"] == run.trace[-1].tokens.tolist()
    assert found["facts"]["policy"] == policy.spec
    assert found["facts"]["decoder"] == decoder.spec


def test_the_facts_of_a_trace_are_enough_to_run_it_again() -> None:
    problem = uneven_problem()
    trace = problem.run("d2cache:current_k=3", "threshold:threshold=0.2").trace
    facts = trace.facts
    again = freshkv.generate(
        problem.network,
        problem.input_ids,
        problem.is_valid,
        policy=facts["policy"],
        decoder=facts["decoder"],
        gen_length=facts["gen_length"],
        block_length=facts["block_length"],
        temperature=facts["temperature"],
        seed=facts["seeds"],
    )
    assert_same_trace(again.trace, trace)
    assert facts["padding"] == [1, 0, 2]


def test_a_trace_is_a_sequence_of_its_steps() -> None:
    trace = uneven_problem().run("dual").trace
    assert [step.rows_computed for step in trace] == [trace[number].rows_computed for number in range(len(trace))]
    assert trace[-1] is list(trace)[-1]
    assert len(trace[2:4]) == 2


def test_a_trace_without_steps_survives_too(tmp_path: Path) -> None:
    empty = Trace((), 4, 9, {"policy": "none"})
    empty.save(tmp_path / "empty")
    assert_same_trace(Trace.load(tmp_path / "empty"), empty)
    assert empty.committed_at.numel() == 0


@frozen
class ValidRows(LayerwisePolicy):
    """Answers with a tensor of its view, which the core keeps from step to step."""

    name = "test-valid-rows"

    def select_layer(self, view: StepView, layer: LayerView) -> Tensor:
        return view.is_valid


def test_a_trace_can_be_saved_whatever_tensors_a_policy_answers_with(tmp_path: Path) -> None:
    trace = uneven_problem().run(ValidRows()).trace
    trace.save(tmp_path / "trace")
    assert_same_trace(Trace.load(tmp_path / "trace"), trace)


def test_saving_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("something else")
    trace = uneven_problem().run("none").trace
    trace.save(path)
    assert_same_trace(Trace.load(path), trace)
    assert [entry.name for entry in tmp_path.iterdir()] == ["trace"]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "trace"
    with pytest.raises(ResultsError, match=r"Cannot write the trace to .*nowhere.*Choose another folder"):
        uneven_problem().run("none").trace.save(path)


def test_a_path_below_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ResultsError, match=r"Cannot write the trace to .*Choose another folder"):
        uneven_problem().run("none").trace.save(tmp_path / "file" / "trace")


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    uneven_problem().run("none").trace.save(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ResultsError, match="Cannot read a trace from"):
            Trace.load(path)


@pytest.mark.parametrize("content", ["text", "tensors", "folder", "missing"])
def test_what_is_not_a_trace_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file"
    if content == "text":
        path.write_text("not a trace at all, but long enough to hold a header")
    elif content == "tensors":
        save_file({"weight": torch.zeros(3)}, path)
    elif content == "folder":
        path.mkdir()
    with pytest.raises(ResultsError, match="trace"):
        Trace.load(path)


@pytest.mark.parametrize("header", ['{"format": "freshkv-trace-2"}', "[]", "nonsense"])
def test_a_trace_with_a_damaged_header_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "trace"
    save_file({"weight": torch.zeros(3)}, path, metadata={"freshkv": header})
    with pytest.raises(ResultsError, match="trace"):
        Trace.load(path)


def test_a_record_takes_no_memory_but_its_own() -> None:
    """One that is kept, or sent to another process, does not take the others along."""
    for policy in ("dual", "dllm"):
        trace = example_problem().run(policy).trace
        tensors = [getattr(record, name) for record in trace for name in (*RECORDED, BY_LAYER)]
        held = [tensor for tensor in tensors if tensor is not None]
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in held)
        assert len({tensor.data_ptr() for tensor in held}) == len(held)
