"""Statistics against numbers by hand, published ones, and simulation."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshkv.compare.statistics import (
    compare_pairs,
    difference_interval,
    holm,
    mcnemar,
    mean_interval,
    median_interval,
    problems_needed,
    wilson_interval,
)


@st.composite
def tables(draw):
    pairs = draw(st.integers(1, 60))
    gained = draw(st.integers(0, pairs))
    return gained, draw(st.integers(0, pairs - gained)), pairs


def test_mcnemar_is_a_fair_coin_for_the_problems_that_only_one_solves():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 1) == mcnemar(1, 1) == mcnemar(7, 7) == 1.0
    assert mcnemar(0, 8) == mcnemar(8, 0) == pytest.approx(2 / 2**8)
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)
    # the airway data of Fagerland, Lydersen and Laake (Statistics in Medicine 33, 2014): 1 and 7 discordant pairs
    assert mcnemar(1, 7) == pytest.approx(0.0703125)


def test_the_difference_has_the_published_interval():
    # Tango's interval of the same data: 21 children, -0.517 to -0.026
    assert difference_interval(1, 7, 21) == pytest.approx((-0.5172, -0.0260), abs=5e-5)


def test_without_a_discordant_problem_the_interval_is_that_of_a_share_of_zero():
    for pairs in (1, 2, 20, 300):
        _, limit = wilson_interval(0, pairs)
        assert difference_interval(0, 0, pairs) == pytest.approx((-limit, limit), abs=1e-7)


def test_if_one_solves_everything_and_the_other_nothing_the_interval_reaches_one():
    low, high = difference_interval(20, 0, 20)
    z2 = 1.959964**2
    assert (low, high) == (pytest.approx((20 - z2) / (20 + z2), abs=1e-6), 1.0)


@given(tables())
def test_intervals_enclose_the_difference_and_turn_with_the_sides(table):
    gained, lost, pairs = table
    low, high = difference_interval(gained, lost, pairs)
    assert -1 <= low <= (gained - lost) / pairs <= high <= 1
    assert low < high
    assert difference_interval(lost, gained, pairs) == pytest.approx((-high, -low), abs=1e-7)


@given(tables())
def test_more_problems_of_the_same_kind_narrow_the_interval(table):
    gained, lost, pairs = table
    low, high = difference_interval(gained, lost, pairs)
    closer, nearer = difference_interval(4 * gained, 4 * lost, 4 * pairs)
    assert nearer - closer < high - low


def exact_coverage(gain, loss, pairs):
    """Probability that the interval holds the true difference: summed over all tables, nothing is drawn."""
    total = 0.0
    for gained in range(pairs + 1):
        for lost in range(pairs + 1 - gained):
            rest = pairs - gained - lost
            ways = math.comb(pairs, gained) * math.comb(pairs - gained, lost)
            probability = ways * gain**gained * loss**lost * (1 - gain - loss) ** rest
            if probability > 1e-9:
                low, high = difference_interval(gained, lost, pairs)
                total += probability * (low <= gain - loss <= high)
    return total


@pytest.mark.parametrize(
    ("gain", "loss", "most"),
    [(0.02, 0.02, 1.0), (0.0, 0.05, 1.0), (0.05, 0.15, 0.97), (0.1, 0.4, 0.97), (0.01, 0.6, 0.97)],
)
def test_nineteen_of_twenty_intervals_hold_the_true_difference(gain, loss, most):
    """Where hardly a problem tells two entries apart, more of them do: the interval errs on the cautious side."""
    assert 0.93 <= exact_coverage(gain, loss, 40) <= most


def test_pairs_are_counted():
    paired = compare_pairs([True, True, False, False, True], [True, False, True, True, False])
    assert (paired.pairs, paired.both, paired.gained, paired.lost) == (5, 1, 2, 2)
    assert (paired.difference, paired.shares, paired.p_value) == (0.0, (0.6, 0.6), 1.0)
    assert paired.discordant_rate == 5 / 7


def test_one_problem_gives_numbers_and_no_warning():
    for own, other in ((True, True), (False, True), (True, False), (False, False)):
        paired = compare_pairs([own], [other])
        assert all(map(math.isfinite, (*paired.interval, paired.p_value, paired.difference)))
        assert paired.p_value == 1.0


def test_holm_against_known_vectors():
    # Holm's own example has 0.01 * 4, 0.02 * 3, 0.03 * 2, 0.04 * 1, each at least the one before
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert (holm([]), holm([0.03])) == ([], [0.03])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_corrects_upwards_in_the_same_order_and_no_further_than_bonferroni(p_values):
    corrected = holm(p_values)
    for p, value in zip(p_values, corrected, strict=True):
        assert p <= value <= min(1.0, p * len(p_values))
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [corrected[place] for place in order] == sorted(corrected)


def test_holm_errs_in_one_of_twenty_families_of_equal_policies():
    randomness = Random(1)
    wrong = sum(min(holm([randomness.random() for _ in range(4)])) < 0.05 for _ in range(4000))
    assert 0.04 < wrong / 4000 < 0.06


def test_the_median_has_an_interval_from_six_values_on():
    assert median_interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None
    assert median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)  # both ends: 1 - 2 / 64
    assert median_interval([2.0] * 20) == (2.0, 2.0)
    # 20 values: the 6th and the 15th, as tables of the sign test have it
    assert median_interval([float(value) for value in range(1, 21)]) == (6.0, 15.0)


def test_nineteen_of_twenty_intervals_hold_the_true_median():
    randomness = Random(2)
    samples = ([randomness.lognormvariate(0.0, 0.5) for _ in range(20)] for _ in range(150))
    held = sum(low <= 1.0 <= high for low, high in map(median_interval, samples))
    assert held / 150 > 0.93


def test_nineteen_of_twenty_intervals_hold_the_true_mean():
    randomness = Random(3)
    samples = ([randomness.gauss(1.0, 0.3) for _ in range(20)] for _ in range(600))
    held = sum(low <= 1.0 <= high for low, high in map(mean_interval, samples))
    assert 0.93 <= held / 600 <= 0.97


def test_the_mean_of_few_or_equal_values():
    assert (mean_interval([1.0]), mean_interval([0.25, 0.25])) == (None, (0.25, 0.25))
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


def test_the_problems_needed_find_the_difference_in_four_of_five_experiments():
    randomness = Random(4)
    count = problems_needed(0.15, 0.25)
    assert 80 < count < 100
    found = 0
    for _ in range(400):
        draws = [randomness.random() for _ in range(count)]
        gained, lost = sum(draw < 0.05 for draw in draws), sum(0.05 <= draw < 0.25 for draw in draws)
        found += mcnemar(gained, lost) < 0.05
    assert 0.7 < found / 400 < 0.88  # the exact test is a little more cautious than the formula
    assert problems_needed(0.02, 0.0) == problems_needed(0.02, 0.02) < problems_needed(0.02, 0.3)
