"""Log-likelihoods by Monte Carlo, against the sum over all masks."""

from itertools import combinations
from math import factorial, sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freshkv import generate
from freshkv.compare.measure import Subject
from freshkv.core.errors import DeviceMemoryError
from freshkv.evaluation.likelihood import Estimator, LikelihoodRequest
from freshkv.evaluation.masking import LEAST_RATE, draw_masks
from tests.core.networks import SmallMemory, cpu_has_no_memory

CONTEXT, TARGET = (3, 5, 1), (2, 7, 4, 6)


def exact(subject, context, target):
    """The bound itself: every set of masked tokens, weighted with its probability and 1 / rate, integrated over it."""
    model = subject.model
    mask, shift = model.network_spec.mask_token_id, model.network_spec.logits_shift
    length, total = len(target), 0.0
    for count in range(1, length + 1):
        weight = factorial(count - 1) * factorial(length - count) / factorial(length)
        for masked in combinations(range(length), count):
            tokens = [mask if place in masked else token for place, token in enumerate(target)]
            logits = model(torch.tensor([[*context, *tokens]])).logits[0].double().log_softmax(dim=-1)
            total += weight * sum(float(logits[len(context) + place - shift, target[place]]) for place in masked)
    return total


def estimator(subject, **changes):
    defaults = {"samples": 64, "masking": "count", "check_greedy": False, "batch_size": 16}
    return Estimator(subject=subject, **{**defaults, **changes})


def request_of(seed=0, context=CONTEXT, target=TARGET, key="key"):
    return LikelihoodRequest(key=key, context=context, target=target, seed=seed)


def score(of, *requests):
    found = []
    of.score(requests, found.extend)
    return {record.key: record for record in found}


@pytest.fixture(params=["llada", "dream"])
def either(request, subject, dream_subject):
    return subject if request.param == "llada" else dream_subject


@pytest.mark.parametrize("masking", ["count", "rate"])
def test_the_estimate_is_the_exact_sum_within_its_standard_error(either, masking):
    truth = exact(either, CONTEXT, TARGET)
    runs = 60
    of = estimator(either, samples=8, masking=masking)
    means = torch.stack([of.sample(request_of(seed)).mean() for seed in range(runs)])
    error = float(means.std()) / sqrt(runs)
    assert 0 < error < 0.2 * abs(truth)
    # rates below the least one are left out, which is at most so much of the sum
    bias = LEAST_RATE * abs(truth) * len(TARGET) if masking == "rate" else 0.0
    assert abs(float(means.mean()) - truth) < 4 * error + bias


def test_more_samples_come_nearer(subject):
    truth = exact(subject, CONTEXT, TARGET)

    def distance(samples):
        of = estimator(subject, samples=samples)
        return sqrt(sum(float(of.sample(request_of(seed)).mean() - truth) ** 2 for seed in range(12)) / 12)

    few, more, many = distance(4), distance(32), distance(256)
    assert few > more > many
    assert many < 0.05 * abs(truth)


def test_a_target_of_one_token_is_exact_with_one_sample(either):
    of = estimator(either, samples=128)
    found = score(of, request_of(target=(2,)))["key"]
    assert found.log_likelihood == pytest.approx(exact(either, CONTEXT, (2,)), abs=1e-5)
    assert found.forwards == 1


def test_an_empty_target_is_certain(subject):
    found = score(estimator(subject, check_greedy=True), request_of(target=()))["key"]
    assert (found.log_likelihood, found.is_greedy) == (0.0, True)


def test_the_same_request_gives_the_same_number_in_any_company_and_batch(either):
    requests = [
        request_of(seed, context=context, target=target, key=str(seed))
        for seed, (context, target) in enumerate(
            [(CONTEXT, TARGET), ((4,), (2, 2)), ((9, 8, 7, 6, 5), (1,) * 6), ((1, 2), (3,))]
        )
    ]
    together = score(estimator(either, batch_size=5), *requests)
    alone = {key: record for each in requests for key, record in score(estimator(either, batch_size=64), each).items()}
    for key, record in together.items():
        assert record.log_likelihood == pytest.approx(alone[key].log_likelihood, abs=1e-4)


def test_seeds_differ_and_repeat(subject):
    of = estimator(subject, samples=8)
    first, again, other = (float(of.sample(request_of(seed)).mean()) for seed in (0, 0, 1))
    assert first == again != other


def test_greedy_is_what_decoding_without_a_cache_gives(either):
    prompt = torch.tensor([CONTEXT])
    answer = tuple(generate(either.model, prompt, gen_length=4).responses[0].tolist())
    wrong = (*answer[:-1], (answer[-1] + 1) % 8)
    found = score(
        estimator(either, samples=1, check_greedy=True),
        request_of(target=answer, key="right"),
        request_of(target=wrong, key="wrong"),
    )
    assert (found["right"].is_greedy, found["wrong"].is_greedy) == (True, False)


def test_without_a_check_nothing_is_greedy(subject):
    assert score(estimator(subject, samples=1), request_of())["key"].is_greedy is False


@settings(max_examples=40)
@given(length=st.integers(1, 9), samples=st.integers(1, 40), seed=st.integers(0, 2**31))
def test_masks_by_count_have_their_weight_and_are_never_empty(length, samples, seed):
    masks = draw_masks(length, samples, "count", torch.Generator().manual_seed(seed))
    counts = masks.is_masked.sum(dim=1)
    assert bool(((counts >= 1) & (counts <= length)).all())
    assert torch.allclose(masks.weight, length / counts.double())
    assert len(counts) == (1 if length == 1 else samples)


@given(length=st.integers(2, 6), times=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_counts_are_spread_evenly_over_the_samples(length, times, seed):
    masks = draw_masks(length, length * times, "count", torch.Generator().manual_seed(seed))
    assert torch.bincount(masks.is_masked.sum(dim=1), minlength=length + 1)[1:].tolist() == [times] * length


@pytest.mark.parametrize(("masking", "samples"), [("count", 3), ("count", 7), ("rate", 16)])
def test_masks_and_weights_sum_any_function_of_the_masked_tokens_as_the_bound_does(masking, samples):
    """The weight of a set of l of L tokens is (l - 1)! (L - l)! / L!; the function here is random numbers."""
    length, runs = 4, 1500
    values = torch.rand(2**length, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 10
    values[0] = 0.0  # nothing is masked, nothing is summed
    counts = torch.tensor([number.bit_count() for number in range(2**length)])
    weights = [0.0, *(factorial(n - 1) * factorial(length - n) / factorial(length) for n in range(1, length + 1))]
    truth = float((values * torch.tensor(weights, dtype=torch.float64)[counts]).sum())

    def estimate(seed):
        masks = draw_masks(length, samples, masking, torch.Generator().manual_seed(seed))
        return (values[(masks.is_masked * 2 ** torch.arange(length)).sum(dim=1)] * masks.weight).mean()

    means = torch.stack([estimate(seed) for seed in range(runs)])
    error = float(means.std()) / sqrt(runs)
    assert error < 0.02 * truth
    left_out = float(values.max()) * length * LEAST_RATE if masking == "rate" else 0.0
    assert abs(float(means.mean()) - truth) < 4 * error + left_out


@pytest.mark.parametrize("masking", ["count", "rate"])
def test_every_token_is_masked_as_often_as_every_other(masking):
    masks = draw_masks(5, 20000, masking, torch.Generator().manual_seed(0))
    share = masks.is_masked.double().mean(dim=0)
    expected = 0.6 if masking == "count" else (1 + LEAST_RATE) / 2
    assert torch.allclose(share, torch.full((5,), expected, dtype=torch.float64), atol=0.02)


def test_a_batch_is_planned_from_the_memory_and_says_so(subject, monkeypatch):
    messages, sizes = [], []
    of = estimator(subject, batch_size=None, max_batch_size=5)
    monkeypatch.setattr(
        Estimator, "_pass", lambda self, rows, real=Estimator._pass: (sizes.append(len(rows)), real(self, rows))[1]
    )
    found = []
    of.score([request_of()], found.extend, messages.append)
    assert max(sizes) == 5
    assert messages[0].startswith("5 sequences are decoded together")
    assert found[0].log_likelihood == pytest.approx(score(estimator(subject), request_of())["key"].log_likelihood)


def test_where_memory_is_lacking_passes_hold_fewer_samples(subject):
    small = Subject(SmallMemory(subject.model, 30, cpu_has_no_memory), subject.tokenizer)
    messages, found = [], []
    requests = [request_of(), request_of(seed=1, key="other")]
    estimator(small).score(requests, found.extend, messages.append)
    # 7 columns each: 16 and 8 sequences are too many, 4 are not, and nothing grows again
    assert [message.split("with ")[1] for message in messages] == [
        "16 sequences in a pass. Going on ",
        "8 sequences in a pass. Going on ",
    ]
    expected = score(estimator(subject), *requests)
    for record in found:
        assert record.log_likelihood == pytest.approx(expected[record.key].log_likelihood)


def test_a_sample_that_does_not_fit_by_itself_is_an_error_that_says_so(subject):
    small = Subject(SmallMemory(subject.model, 5, cpu_has_no_memory), subject.tokenizer)
    with pytest.raises(DeviceMemoryError, match=r"One sequence does not fit .* Shorten it \(max_length\)"):
        estimator(small, batch_size=2).score([request_of()], list.append, lambda message: None)
