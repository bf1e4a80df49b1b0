"""Memory that is planned beforehand, against what runs take."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import attrs
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import freshkv
from freshkv import CachePolicy, Request
from freshkv.core import memory
from freshkv.core.capacity import MOST_SLOTS, SequenceBytes, SlotPlan, Workload, readable, workload_of
from freshkv.core.memory import container_free, free_bytes
from freshkv.core.registry import resolve_decoder, resolve_policy
from freshkv.core.sampling import Sampling
from freshkv.testing import NetworkShape, Problem, asked, example_problem, tiny_network
from freshkv.testing.strategies import problems
from tests.core.support import POLICIES, examples, policies_of
from tests.core.test_packing import SHAPE, requests


def workload(policy: str | CachePolicy, decoder: str = "confidence", **changes: object) -> Workload:
    values = {"seq": 12, "gen_length": 8, "block_length": 4, "element_size": 8, **changes}
    return Workload(policy=resolve_policy(policy), decoder=resolve_decoder(decoder), **values)


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_planned_for_caches_is_what_a_run_holds(name: str) -> None:
    @examples(10)
    @given(problems(), policies_of(name))
    def check(problem: Problem, policy: CachePolicy) -> None:
        spec = problem.network.network_spec
        seq = problem.prompt_length + problem.gen_length
        planned = workload(policy, seq=seq, element_size=8 if problem.shape.double else 4).bytes(spec)
        held = problem.run(policy).stats.cache_bytes
        least, most = problem.batch * planned.cache, problem.batch * (planned.cache + planned.copies)
        assert least <= held <= most

    check()


@pytest.mark.parametrize("name", POLICIES)
def test_policies_that_hide_keys_say_so(name: str) -> None:
    """Or their copies are missing from the plan."""

    @examples(10)
    @given(problems(max_batch=1), policies_of(name))
    def check(problem: Problem, policy: CachePolicy) -> None:
        hides = any(selection.visible is not None for _, selection in asked(policy, problem))
        assert policy.hides_keys or not hides

    check()


def test_what_a_policy_keeps_besides_is_counted() -> None:
    spec = tiny_network(NetworkShape(layers=2, heads=4, kv_heads=2, head_width=8)).network_spec
    keys_and_values = 2 * 2 * 12 * 2 * 8 * 8  # both, layers, columns, heads, elements, bytes
    outputs = 2 * 12 * 32 * 8  # one a layer
    plain = workload("dual").bytes(spec)
    assert (plain.cache, plain.copies, plain.truth) == (keys_and_values, 0, 0)
    assert workload("dllm").bytes(spec).cache == keys_and_values + outputs
    assert workload("oracle").bytes(spec).truth == keys_and_values
    assert workload("block").bytes(spec).copies > keys_and_values
    assert plain.total == plain.cache + plain.working


def test_the_largest_tensor_of_a_pass_may_be_logits() -> None:
    wide = tiny_network(NetworkShape(vocabulary=60)).network_spec
    wide = attrs.evolve(wide, vocabulary=126464)
    block, response = (8 + 12) * 4 * 126464, (8 + 12) * 8 * 126464
    assert workload("dual").bytes(wide).working == block
    assert workload("dual", block_length=8).bytes(wide).working == response
    assert workload("frontier").bytes(wide).working == block
    assert workload("d2cache").bytes(wide).working > response  # all masked positions, and queries
    assert workload("dual", "wino").bytes(wide).working == 2 * block  # as many shadow rows
    for changes in ({"sampling": Sampling(temperature=1.0)}, {"sampling": Sampling(top_p=0.9)}, {"decoder": "klass"}):
        assert workload("dual", **changes).bytes(wide).working > block


def test_a_canvas_holds_any_of_the_requests() -> None:
    spec = tiny_network(SHAPE).network_spec
    given = [Request([1] * 9, gen_length=4), Request([1], gen_length=8, block_length=2)]
    parts = (resolve_policy("dual"), resolve_decoder("confidence"), Sampling())
    found = workload_of(given, *parts, spec=spec, dtype=torch.bfloat16)
    assert (found.seq, found.gen_length, found.block_length, found.element_size) == (13, 8, 4, 2)


@examples(50)
@given(free=st.integers(0, 10**6), cache=st.integers(1, 5000), working=st.integers(0, 5000), share=st.floats(0.1, 1.0))
def test_slots_are_as_many_as_fit_and_at_least_one(free: int, cache: int, working: int, share: float) -> None:
    plan = SlotPlan(sequence=SequenceBytes(cache=cache, working=working), free=free, share=share)
    assert 1 <= plan.slots <= MOST_SLOTS
    each = cache + working
    assert plan.slots == 1 or plan.slots * each <= free * share + 1
    assert plan.slots == MOST_SLOTS or (plan.slots + 1) * each > free * share - 1


def test_without_a_batch_size_slots_are_planned_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_network(SHAPE).network_spec
    parts = (resolve_policy("dual"), resolve_decoder("confidence"), Sampling())
    each = workload_of(requests(), *parts, spec=spec, dtype=torch.float64).bytes(spec)
    monkeypatch.setattr("freshkv.core.serving.free_bytes", lambda device: 4 * each.total)
    for share, slots in ((1.0, 4), (0.9, 3), (0.1, 1)):
        messages: list[str] = []
        served = freshkv.generate_many(
            tiny_network(SHAPE), requests(), policy="dual", memory_share=share, on_message=messages.append
        )
        assert {result.stats.slots for result in served} == {slots}
        (message,) = messages
        assert message.startswith(f"{slots} sequences are decoded together: each takes ")


def test_bytes_are_told_in_units_that_one_can_read() -> None:
    sizes = (0, 512, 1500, 80_000_000, 999_999_999, 22_100_000_000, 640_000_000_000)
    assert [readable(size) for size in sizes] == [
        "0 B", "512 B", "1.50 kB", "80.0 MB", "1000 MB", "22.1 GB", "640 GB",
    ]  # fmt: skip


def test_there_are_no_more_slots_than_requests() -> None:
    served = freshkv.generate_many(tiny_network(SHAPE), requests())
    assert {result.stats.slots for result in served} == {len(requests())}


def test_what_is_free_on_the_cpu_is_what_the_system_and_the_container_leave(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    assert free_bytes(cpu, tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert container_free(tmp_path) == []
    assert 0 < free_bytes(cpu, tmp_path) <= psutil.virtual_memory().total


def test_older_control_groups_count_too(tmp_path: Path) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    (folder / "memory.limit_in_bytes").write_text("2000\n")
    (folder / "memory.usage_in_bytes").write_text("2500\n")
    (folder / "memory.stat").write_text("total_inactive_file 100\n")
    assert container_free(tmp_path) == [0]


def test_what_is_free_on_a_gpu_is_what_it_has_and_what_torch_only_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(
        mem_get_info=lambda device: (1000, 5000),
        memory_reserved=lambda device: 300,
        memory_allocated=lambda device: 200,
    )
    monkeypatch.setattr(memory.torch, "cuda", gpu)
    assert free_bytes(torch.device("cuda:1")) == 1100


def test_copies_of_visible_keys_are_held_and_planned_for() -> None:
    problem = example_problem()
    planned = workload("block", seq=problem.prompt_length + problem.gen_length).bytes(problem.network.network_spec)
    held = problem.run("block", gathering="always").stats.cache_bytes
    assert planned.cache * problem.batch < held <= (planned.cache + planned.copies) * problem.batch
