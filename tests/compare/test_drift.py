"""Drift: what is measured is what the naive executor finds, and a file that survives."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

import freshkv
from freshkv import CachePolicy, Decoder, LayerwisePolicy, Selection, StepView
from freshkv.compare.drift import REGIONS, Drift, measure_drift
from freshkv.compare.drift_record import TENSORS
from freshkv.compare.drift_summary import ages
from freshkv.core.errors import InputError, ResultsError
from freshkv.core.naive import NaiveExecutor
from freshkv.core.registry import policies
from freshkv.core.sampling import Sampling
from freshkv.policies.dllm import DLLMCache
from freshkv.testing import NetworkShape, Problem, wrapped
from freshkv.testing.strategies import problems
from tests.core.support import any_decoder, any_policy, configured_any, examples, policies_of
from tests.core.test_truth import RowsByLayer

KINDS = ("keys", "values", "hidden")


def measured(problem: Problem, policy: object, decoder: object = "confidence", **options: object) -> Drift:
    """The drift of the first sequence of ``problem``, greedily decoded."""
    alone = problem.only(0)
    return measure_drift(
        alone.network,
        alone.input_ids,
        alone.is_valid,
        policy=policy,  # type: ignore[arg-type]
        decoder=decoder,  # type: ignore[arg-type]
        gen_length=alone.gen_length,
        block_length=alone.block_length,
        seed=alone.seeds[0],
        **options,  # type: ignore[arg-type]
    )


def fixed_problem(family: str = "llada") -> Problem:
    return Problem(
        shape=NetworkShape(family=family, layers=3),  # type: ignore[arg-type]
        input_ids=torch.tensor([[0, 3, 5, 6, 7]]),
        is_valid=torch.tensor([[False, True, True, True, True]]),
        gen_length=8,
        block_length=4,
        seeds=(3,),
    )


def assert_same_drift(first: Drift, second: Drift) -> None:
    for field in attrs.fields(Drift):
        mine, its = getattr(first, field.name), getattr(second, field.name)
        if isinstance(mine, Tensor):
            torch.testing.assert_close(mine, its, rtol=0, atol=0, equal_nan=True)
        else:
            assert mine == its, field.name


@examples(25)
@given(problem=problems(max_batch=1), decoder=any_decoder())
def test_without_a_cache_nothing_drifts(problem: Problem, decoder: Decoder) -> None:
    drift = measured(problem, "none", decoder)
    for kind in KINDS:
        assert float(getattr(drift, f"{kind}_cosine").nan_to_num().max()) < 1e-12
        assert float(getattr(drift, f"{kind}_norm").nan_to_num().max()) < 1e-6
    predicted = ~drift.top1.isnan()
    assert float(drift.kl[predicted].max()) < 1e-6
    assert bool((drift.top1[predicted] == 1).all())
    assert drift.parted_at is None
    assert drift.response_differs == 0


@examples(30)
@given(problem=problems(max_batch=1), policy=any_policy(), decoder=any_decoder())
def test_rows_refreshed_in_layer_0_do_not_drift_there(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    drift = measured(problem, policy, decoder)
    fresh = drift.refreshed[:, 0]
    for kind in ("keys", "values"):
        assert float(getattr(drift, f"{kind}_norm")[:, 0][fresh].max()) < 1e-6


@examples(30)
@given(problem=problems(max_batch=1), policy=any_policy(), decoder=any_decoder())
def test_what_is_told_of_a_run_is_what_its_trace_says(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    alone = problem.only(0).evolve(sampling=Sampling(), eos_token_id=None)
    drift, run = measured(alone, policy, decoder), alone.run(policy, decoder)
    uncached = alone.run("none", decoder)
    valid = torch.cat((alone.is_valid[0], torch.ones(alone.gen_length, dtype=torch.bool)))
    assert (drift.policy, drift.decoder) == (policy.spec, decoder.spec)
    assert drift.prompt_length == alone.prompt_length
    before = torch.cat((alone.input_ids[0], torch.full((alone.gen_length,), alone.shape.mask_token_id)))
    for number, step in enumerate(run.trace):
        assert torch.equal(drift.tokens[number], step.tokens[0])
        assert torch.equal(drift.committed[number], step.committed[0])
        for layer in range(drift.layers):
            assert torch.equal(drift.refreshed[number, layer], step.layer(layer)[0] & valid)
        predicted = ~drift.top1[number].isnan()
        torch.testing.assert_close(
            drift.confidence[number][predicted], step.confidence[0][predicted], rtol=1e-4, atol=1e-5
        )
        masked = (before == alone.shape.mask_token_id) & (torch.arange(len(before)) >= alone.prompt_length)
        assert torch.equal(drift.is_region("block")[number] | drift.is_region("suffix")[number], masked)
        assert torch.equal(drift.is_region("padding")[number], ~valid)
        assert not bool(predicted[~masked].any()), "only masks are predicted"
        before = step.tokens[0]
    assert torch.equal(drift.uncached_tokens, torch.cat([step.tokens for step in uncached.trace]))
    same = [torch.equal(a.tokens, b.tokens) for a, b in zip(run.trace, uncached.trace, strict=False)]
    assert drift.parted_at == (same.index(False) if False in same else None)
    assert drift.parted_at is not None or len(run.trace) == len(uncached.trace)
    for name in TENSORS:
        if name.endswith(("_cosine", "_norm")):
            found = getattr(drift, name)
            assert torch.equal(found.isnan(), ~valid.expand_as(found)), "only padding has no drift"


def known(what: dict[tuple[int, int, int], Tensor], layer: int, seq: int) -> Tensor:
    """What the naive executor holds of a layer, [1, seq, ...]."""
    return torch.stack([what[layer, 0, column] for column in range(seq)])[None]


def naive_states(
    problem: Problem,
    tokens: Tensor,
    executor: NaiveExecutor,
    rows: list[Tensor],
    probe: Tensor | None = None,
    visible: Tensor | None = None,
) -> list[Tensor]:
    """Hidden states behind every layer, [layers, 1, seq, width], from the sum of what each layer adds."""
    seq, layers = tokens.shape[1], problem.shape.layers
    hidden = problem.network.embed_rows(tokens.flatten())[None]
    executor.step(tokens, rows, probe=None if probe is None else [probe] * layers, visible=visible)
    states = []
    for layer in range(layers):
        hidden = hidden + known(executor.attention, layer, seq) + known(executor.feed_forward, layer, seq)
        states.append(hidden)
    return states


NARROW = {name: cls for name, cls in policies().items() if not issubclass(cls, LayerwisePolicy)}


@examples(15)
@given(
    problem=problems(max_batch=1),
    policy=configured_any(NARROW) | policies_of("dllm") | st.builds(RowsByLayer, st.integers(0, 50)),
    decoder=any_decoder(),
)
def test_drift_is_what_the_naive_executor_finds(problem: Problem, policy: CachePolicy, decoder: Decoder) -> None:
    alone = problem.only(0).evolve(sampling=Sampling(), eos_token_id=None)
    drift, network, layers = measured(alone, policy, decoder), alone.network, alone.shape.layers
    seq = drift.seq
    valid = torch.cat((alone.is_valid, torch.ones(1, alone.gen_length, dtype=torch.bool)), dim=1)
    tokens = torch.cat((alone.input_ids, torch.full((1, alone.gen_length), alone.shape.mask_token_id)), dim=1)
    cached, everything = NaiveExecutor(network, valid), torch.ones_like(valid)
    last: list[Tensor] = []
    visible: list[Tensor | None] = []

    def watch(original):  # type: ignore[no-untyped-def]
        def select(view: StepView) -> Selection:
            visible.append(original(view).visible)
            return original(view)

        return select

    run = alone.run(wrapped(policy, select=watch), decoder)
    shift, mask = network.network_spec.logits_shift, alone.shape.mask_token_id
    for number, step in enumerate(run.trace):
        rows = [step.layer(layer) for layer in range(layers)]
        adaptive = isinstance(policy, DLLMCache) and number % policy.kr != 0 and policy.rou > 0
        probe = (torch.arange(valid.shape[1]) >= alone.prompt_length)[None] if adaptive else None
        mine = naive_states(alone, tokens, cached, rows, probe, visible[number])
        if not isinstance(policy, LayerwisePolicy) and number > 0:
            # on the narrow path a row that is reused keeps what it last left the layer with
            mine = [torch.where(rows[0][:, :, None], now, before) for now, before in zip(mine, last, strict=True)]
        last = mine
        truth = NaiveExecutor(network, valid)
        true = naive_states(alone, tokens, truth, [everything] * layers)
        for layer in range(layers):
            pairs = {
                "keys": (known(cached.keys, layer, seq), known(truth.keys, layer, seq)),
                "values": (known(cached.values, layer, seq), known(truth.values, layer, seq)),
                "hidden": (mine[layer], true[layer]),
            }
            for kind, pair in pairs.items():
                held, right = (vectors.flatten(2)[0].double() for vectors in pair)
                cosine = (1 - functional.cosine_similarity(held, right, dim=1)).masked_fill(~valid[0], torch.nan)
                norm = ((held - right).norm(dim=1) / right.norm(dim=1)).masked_fill(~valid[0], torch.nan)
                found = getattr(drift, f"{kind}_cosine")[number, layer].double()
                torch.testing.assert_close(found, cosine, rtol=1e-3, atol=1e-5, equal_nan=True)
                found = getattr(drift, f"{kind}_norm")[number, layer].double()
                torch.testing.assert_close(found, norm, rtol=1e-3, atol=1e-4, equal_nan=True)
        for column in (~drift.top1[number].isnan()).nonzero()[:, 0].tolist():
            run_logits, true_logits = (
                network.logits(states[-1][0, column - shift][None]).double() for states in (mine, true)
            )
            kl = functional.kl_div(
                run_logits.log_softmax(1), true_logits.log_softmax(1), log_target=True, reduction="sum"
            )
            assert float(drift.kl[number, column]) == pytest.approx(float(kl), rel=1e-2, abs=1e-5)
            run_logits[:, mask] = true_logits[:, mask] = -torch.inf
            two = true_logits.topk(2).values[0]
            if float(two[0] - two[1]) > 1e-4:  # no tie
                best = int(true_logits.argmax())
                wrong = bool(step.committed[0, column]) and int(step.tokens[0, column]) != best
                assert bool(drift.committed_wrong[number, column]) == wrong
        tokens = step.tokens


@pytest.mark.parametrize("family", ["llada", "dream"])
@pytest.mark.parametrize("name", sorted(policies()))
def test_every_policy_can_be_measured(name: str, family: str) -> None:
    drift = measured(fixed_problem(family), name)
    assert drift.steps == 8
    assert int(drift.committed.sum()) == 8
    valid, first = ~drift.is_region("padding")[0], drift.keys_cosine[0]
    assert bool(drift.refreshed[0][:, valid].all()), "the first step refreshes everything"
    assert float(first[0, valid].max()) < 1e-12
    if bool((fixed_problem(family).run(name).trace[0].keys == valid.sum()).all()):
        assert float(first[:, valid].max()) < 1e-12, "what hides no key computes what the uncached run does"
    summary = drift.summary()
    assert summary.committed == 8
    assert 0 <= summary.top1 <= 1
    assert summary.to_dict()["policy"] == drift.policy


def test_a_cache_that_is_never_refreshed_drifts_ever_more_and_spoils_commits() -> None:
    """What ``dual`` reuses drifts; what it refreshes in layer 0 does not."""
    drift = measured(fixed_problem(), "dual")
    reused = ~drift.refreshed
    assert float(drift.keys_cosine[reused].nan_to_num().sum()) > 0
    summary = drift.summary()
    assert summary.by_age["0"].keys_cosine < summary.by_age["1"].keys_cosine
    assert summary.by_region["suffix"].places > 0
    assert summary.rows_share == pytest.approx((2 * 12 + 6 * 4) / (8 * 12))


def test_the_summary_is_the_mean_over_its_places() -> None:
    drift = measured(fixed_problem("dream"), "dllm:kr=3")
    summary = drift.summary()
    valid = drift.keys_cosine[:, :, 1:]
    assert summary.overall.keys_cosine == pytest.approx(float(valid.double().mean()))
    assert summary.overall.places == valid.numel()
    assert summary.by_layer[1].values_norm == pytest.approx(float(drift.values_norm[:, 1, 1:].double().mean()))
    prompt = drift.hidden_cosine[:, :, 1:5]
    assert summary.by_region["prompt"].hidden_cosine == pytest.approx(float(prompt.double().mean()))
    assert sum(part.places for part in summary.by_region.values()) == valid.numel()
    assert sum(part.places for part in summary.by_age.values()) == valid.numel()


def test_ages_count_steps_since_a_refresh() -> None:
    refreshed = torch.tensor([[1, 1], [0, 1], [0, 0], [1, 0], [0, 0]], dtype=torch.bool)[:, None]
    assert ages(refreshed)[:, 0].tolist() == [[0, 0], [1, 0], [2, 1], [0, 2], [1, 3]]


def test_steps_are_told_as_they_are_done() -> None:
    told: list[int] = []
    measured(fixed_problem(), "dual", on_step=lambda step: told.append(int(step.committed.sum())))
    assert told == [1] * 8


def test_an_uncached_run_at_hand_is_not_decoded_again() -> None:
    problem = fixed_problem()
    trace = problem.run("none").trace
    assert_same_drift(measured(problem, "dual", uncached=trace), measured(problem, "dual"))


def test_several_prompts_are_refused() -> None:
    with pytest.raises(InputError, match=r"got 2 prompts; expected one"):
        measure_drift(fixed_problem().network, torch.ones(2, 3, dtype=torch.long), policy="dual", gen_length=4)


@pytest.mark.parametrize("policy", ["dual", "dllm", "oracle:budget=0.3"])
def test_a_drift_survives_save_and_load(tmp_path: Path, policy: str) -> None:
    drift = measured(fixed_problem(), policy)
    drift.save(tmp_path / "drift")
    assert_same_drift(Drift.load(str(tmp_path / "drift")), drift)
    assert [entry.name for entry in tmp_path.iterdir()] == ["drift"]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"Cannot write the drift to .*nowhere.*Choose another folder"):
        measured(fixed_problem(), "dual").save(tmp_path / "nowhere" / "drift")


def test_a_truncated_file_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "drift"
    measured(fixed_problem(), "dual").save(path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ResultsError, match="Cannot read a drift from"):
            Drift.load(path)


@pytest.mark.parametrize("header", ['{"format": "freshkv-drift-1"}', "[]", "nonsense", '{"format": "freshkv-trace-1"}'])
def test_what_is_not_a_drift_is_refused(tmp_path: Path, header: str) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "file", metadata={"freshkv": header})
    with pytest.raises(ResultsError, match="drift"):
        Drift.load(tmp_path / "file")


def test_a_file_whose_parts_do_not_fit_together_is_refused(tmp_path: Path) -> None:
    drift = measured(fixed_problem(), "dual")
    with pytest.raises(ValueError, match=r"kl is \(3, 13\); expected \(8, 13\)"):
        attrs.evolve(drift, kl=drift.kl[:3])


def test_regions_have_one_name_each() -> None:
    drift = measured(fixed_problem(), "dual")
    assert bool((torch.stack([drift.is_region(name) for name in REGIONS]).sum(dim=0) == 1).all())


def test_the_bundled_model_drifts_least_with_the_oracle_and_most_at_random() -> None:
    """At the same number of rows, on the same prompt; greedy decoding, so that nothing here is left to chance."""
    model = freshkv.load("tiny-llada")
    ids = torch.tensor([[14, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2]])
    left = {}
    for policy in ("oracle", "random"):
        drift = measure_drift(model, ids, policy=policy, gen_length=32, block_length=16)
        summary = drift.summary()
        left[policy] = summary.overall.keys_cosine + summary.overall.values_cosine
        assert summary.rows_share == pytest.approx((1 + 31 * 0.1) / 32, abs=1 / 50 / 32)
    assert left["oracle"] < left["random"]
